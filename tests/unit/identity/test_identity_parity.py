"""The whole injection against diffusers' IP-Adapter on the same weights."""

from __future__ import annotations

from typing import Any

import comfy.utils
import pytest
import torch
from likeness.nodes.identity.adapter import parse_adapter
from likeness.nodes.identity.blend import Combine, Pictures, PlusVersion, face_tokens
from likeness.nodes.identity.inject import inject
from likeness.nodes.identity.projection import project

diffusers = pytest.importorskip("diffusers")

SIZES = {
    "sd15": {"block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 768,
             "attention_head_dim": 8},
    "sdxl": {"block_out_channels": (32, 64, 128), "cross_attention_dim": 2048,
             "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
             "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
             "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (1, 1, 2),
             "use_linear_projection": True, "addition_embed_type": "text_time",
             "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816},
}


def diffusers_twin(model: Any, family: str) -> Any:
    """The same UNet as a diffusers model with the same weights."""
    twin = diffusers.UNet2DConditionModel(sample_size=16, layers_per_block=2, **SIZES[family])
    weights = model.model.diffusion_model.state_dict()
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    known = twin.state_dict().keys()
    twin.load_state_dict({theirs: weights[ours] for theirs, ours in names.items()
                          if theirs in known})
    return twin.eval()


def merge_lora(twin: Any, attention: dict[str, torch.Tensor], strength: float) -> None:
    """Add the file's LoRA to the twin's weights, in the order of diffusers' own attention list."""
    for number, name in enumerate(twin.attn_processors):
        layer = twin.get_submodule(name.removesuffix(".processor"))
        for part, linear in (("q", layer.to_q), ("k", layer.to_k), ("v", layer.to_v),
                             ("out", layer.to_out[0])):
            up, down = (attention[f"{number}.to_{part}_lora.{end}.weight"]
                        for end in ("up", "down"))
            linear.weight.data += strength * up @ down


def predict(model: Any, inputs: dict[str, torch.Tensor], rows: list[int]) -> torch.Tensor:
    """Run a MODEL's UNet once with its patches, as the host's sampler would."""
    options = {**model.model_options["transformer_options"], "cond_or_uncond": rows,
               "sigmas": torch.tensor([1.0])}
    model.patch_model()
    try:
        return model.model.diffusion_model(inputs["x"], inputs["t"], context=inputs["context"],
                                           y=inputs["y"], transformer_options=options)
    finally:
        model.unpatch_model()


def make_inputs(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    width = SIZES[family]["cross_attention_dim"]
    return {"x": torch.randn(2, 4, 16, 16, generator=generator), "t": torch.tensor([500, 500]),
            "context": torch.randn(2, 9, width, generator=generator),
            "pooled": torch.randn(2, 1280, generator=generator),
            "time_ids": torch.tensor([[512.0, 512, 0, 0, 512, 512]] * 2)}


@pytest.fixture(params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.no_grad()
def test_a_faceid_file_changes_the_prediction_as_it_does_in_diffusers(family, request, tools):
    model = request.getfixturevalue(family)
    content = tools["adapter"](model)
    twin, inputs = diffusers_twin(model, family), make_inputs(family)
    face = torch.nn.functional.normalize(torch.randn(1, 512), dim=1)
    merge_lora(twin, content["ip_adapter"], 0.6)
    twin._load_ip_adapter_weights([content], low_cpu_mem_usage=False)
    for processor in twin.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.7]
    embeddings = torch.stack((torch.zeros(1, 512), face))  # row 0: nobody, row 1: the person
    expected = twin(inputs["x"], inputs["t"], inputs["context"], added_cond_kwargs={
        "image_embeds": [embeddings], "text_embeds": inputs["pooled"],
        "time_ids": inputs["time_ids"]}).sample

    adapter = parse_adapter(content, "adapter.bin")
    tokens = face_tokens(adapter, face, Combine.MEAN, normed=True)
    done = inject(model, adapter, "adapter.bin", tokens, weight=0.7, lora_strength=0.6)
    sizes = [comfy.ldm.modules.diffusionmodules.util.timestep_embedding(column, 256)
             for column in inputs["time_ids"].T]
    inputs["y"] = torch.cat((inputs["pooled"], *sizes), dim=1) if family == "sdxl" else None
    found = predict(done.model, inputs, [1, 0])
    plain = predict(model, inputs, [1, 0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.std().item())
    assert (plain - expected).abs().max() > 0.1 * expected.std()  # the adapter does matter


@torch.no_grad()
@pytest.mark.parametrize("shortcut", [False, True])
def test_faceid_plus_tokens_equal_diffusers(sd15, tools, shortcut):
    content = tools["adapter"](sd15, plus=True, clip_width=96)
    theirs = diffusers_projection(content["image_proj"])
    face = torch.nn.functional.normalize(torch.randn(1, 512), dim=1)
    features, blank = torch.randn(2, 1, 257, 96).unbind()
    theirs.shortcut, theirs.shortcut_scale = shortcut, 0.8
    theirs.clip_embeds = torch.stack((features, blank))
    expected = theirs(torch.cat((face, torch.zeros(1, 512))))

    adapter = parse_adapter(content, "plus.bin")
    tokens = face_tokens(adapter, face, Combine.MEAN, normed=True,
                         pictures=Pictures(features, blank), plus=PlusVersion(shortcut, 0.8))
    found = torch.cat((tokens.face, tokens.nobody))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_faceid_tokens_equal_diffusers(sdxl, tools):
    content = tools["adapter"](sdxl)
    faces = torch.randn(3, 512)
    expected = diffusers_projection(content["image_proj"])(faces)
    torch.testing.assert_close(project(content["image_proj"], faces), expected,
                               rtol=1e-4, atol=1e-4)


def diffusers_projection(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """diffusers' own module for an adapter's image_proj section, by its own key conversion."""
    owner = diffusers.UNet2DConditionModel(
        block_out_channels=(32,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        layers_per_block=1)
    return owner._convert_ip_adapter_image_proj_to_diffusers(weights, low_cpu_mem_usage=False)
