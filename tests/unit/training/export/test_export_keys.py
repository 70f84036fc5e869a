"""Names of adapted layers in files, and the cutting of fused ones."""

from __future__ import annotations

import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.flux
import comfy.utils
import pytest
import torch
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.adapters.group import Adapters
from likeness.nodes.training.export.diffusers import network_parts, network_tensors, text_tensors
from likeness.nodes.training.export.keys import KeyStyle, layer_keys, text_keys
from likeness.nodes.training.recipes.adapters import LoRARecipe

UNET_PATH = "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0"
CLIP_PATH = "transformer.text_model.encoder.layers.3.self_attn.q_proj"


class _Clip:
    """A CLIP with encoders on the meta device: names and shapes only."""

    def __init__(self, encoders: torch.nn.Module) -> None:
        self.cond_stage_model = encoders


def _adapters(model, target="all linear", **fields) -> Adapters:
    recipe = LoRARecipe(rank=4, target=target, **fields)
    made = Adapters(model.model.diffusion_model, recipe, torch.Generator().manual_seed(0),
                    training_models.CPU)
    with torch.no_grad():
        for layer in made.layers.values():
            layer.up.normal_(generator=torch.Generator().manual_seed(1))
    return made


@pytest.mark.parametrize(("name", "key"), [
    ("sd15", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"),
    ("demo", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0")])
def test_sd1_layers_have_the_names_sd_scripts_gives_them(name, key):
    model = training_models.make_model(name)
    assert layer_keys(model, [UNET_PATH]) == {UNET_PATH: key}


def test_sdxl_layers_keep_comfyuis_names_as_sd_scripts_does():
    path = "input_blocks.4.1.transformer_blocks.0.attn2.to_k"
    keys = layer_keys(training_models.make_model("sdxl"), [path])
    assert keys == {path: "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"}


def test_plain_keys_are_the_paths_in_the_model():
    path = "double_blocks.0.img_attn.qkv"
    keys = layer_keys(training_models.make_model("flux"), [path], KeyStyle.PLAIN)
    assert keys == {path: f"diffusion_model.{path}"}


def test_a_layer_the_loader_does_not_know_is_named():
    with pytest.raises(LikenessError, match="no name for layer `no.such.layer`"):
        layer_keys(training_models.make_model("sd15"), ["no.such.layer"])


@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_every_layer_has_its_own_key(name):
    model = training_models.make_model(name)
    paths = _adapters(model).layers
    for style in (KeyStyle.KOHYA, KeyStyle.PLAIN):
        assert len(set(layer_keys(model, paths, style).values())) == len(paths)


def test_fused_layers_are_cut_in_the_order_of_their_rows():
    model = training_models.make_model("flux")
    parts = network_parts(model, ["single_blocks.1.linear1"])["single_blocks.1.linear1"]
    stem = "single_transformer_blocks.1"
    assert sorted((part.rows, part.name) for part in parts) == [
        ((0, 64), f"{stem}.attn.to_q"), ((64, 64), f"{stem}.attn.to_k"),
        ((128, 64), f"{stem}.attn.to_v"), ((192, 256), f"{stem}.proj_mlp")]


@pytest.mark.parametrize(("name", "path"), [
    ("sd3", "joint_blocks.0.x_block.attn.qkv"), ("flux", "single_blocks.0.linear1")])
def test_the_parts_of_a_fused_layer_make_its_whole_difference(name, path):
    model = training_models.make_model(name)
    adapters = _adapters(model, "attention and feed-forward", alpha=2.0)
    layer = adapters.layers[path]
    tensors = network_tensors(model, adapters, torch.float32)
    parts = sorted(network_parts(model, [path])[path], key=lambda part: part.rows)
    pieces = [tensors[f"transformer.{part.name}.lora_B.weight"]
              @ tensors[f"transformer.{part.name}.lora_A.weight"] for part in parts]
    wanted = layer.difference(torch.zeros(layer.shape))
    assert torch.allclose(torch.cat(pieces), wanted, rtol=1e-5, atol=1e-6)


def test_diffusers_tensors_share_no_memory():
    model = training_models.make_model("sd3")
    tensors = network_tensors(model, _adapters(model), torch.float32)
    assert len({value.data_ptr() for value in tensors.values()}) == len(tensors)


def test_a_small_scale_survives_half_precision():
    model = training_models.make_model("flux")
    adapters = _adapters(model, alpha=4 * 2.0 ** -12)
    with torch.no_grad():
        for layer in adapters.layers.values():
            layer.up.mul_(1e-3)
    path = "double_blocks.0.img_attn.proj"
    tensors = network_tensors(model, adapters, torch.float16)
    stem = "transformer.transformer_blocks.0.attn.to_out.0"
    found = (tensors[f"{stem}.lora_B.weight"].float() @ tensors[f"{stem}.lora_A.weight"].float())
    wanted = adapters.layers[path].difference(torch.zeros(adapters.layers[path].shape))
    assert (found - wanted).norm() < 5e-3 * wanted.norm()


def test_only_lora_has_a_file_in_diffusers_layout(monkeypatch):
    model = training_models.make_model("sd15")
    adapters = _adapters(model)
    layer = next(iter(adapters.layers.values()))
    tensors = layer.to_file(torch.float32)
    monkeypatch.setattr(layer, "to_file", lambda dtype: {**tensors, "dora_scale": torch.ones(1)})
    with pytest.raises(LikenessError, match="Only LoRA has a file in diffusers' layout"):
        network_tensors(model, adapters, torch.float32)


def _encoders(kind: str) -> _Clip:
    with torch.device("meta"):
        if kind == "sd15":
            return _Clip(comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float32))
        if kind == "sdxl":
            return _Clip(comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float32))
        return _Clip(comfy.text_encoders.flux.FluxClipModel(device="meta", dtype=torch.float32))


@pytest.mark.parametrize(("kind", "encoder", "kohya", "diffusers"), [
    ("sd15", "clip_l", "lora_te", "text_encoder"),
    ("sdxl", "clip_l", "lora_te1", "text_encoder"),
    ("sdxl", "clip_g", "lora_te2", "text_encoder_2"),
    ("flux", "clip_l", "lora_te1", "text_encoder")])
def test_text_encoders_have_sd_scripts_and_diffusers_names(kind, encoder, kohya, diffusers):
    clip, path = _encoders(kind), f"{encoder}.{CLIP_PATH}"
    layer = "text_model.encoder.layers.3.self_attn.q_proj"
    assert text_keys(clip, [path])[path] == (
        f"{kohya}_text_model_encoder_layers_3_self_attn_q_proj")
    assert text_keys(clip, [path], KeyStyle.DIFFUSERS)[path] == f"{diffusers}.{layer}"
    assert text_keys(clip, [path], KeyStyle.PLAIN)[path] == f"text_encoders.{path}"


def test_t5_is_sd_scripts_third_encoder_and_none_of_diffusers():
    clip, path = _encoders("flux"), "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q"
    assert text_keys(clip, [path])[path] == "lora_te3_encoder_block_0_layer_0_SelfAttention_q"
    with pytest.raises(LikenessError, match="Diffusers' pipelines load no adapter"):
        text_keys(clip, [path], KeyStyle.DIFFUSERS)


def test_text_encoder_tensors_carry_the_scale():
    model = training_models.make_model("sd15")
    source = next(iter(_adapters(model, "cross-attention", alpha=2.0).layers.values()))
    adapters = type("Learned", (), {"layers": {f"clip_l.{CLIP_PATH}": source}})()
    tensors = text_tensors(_encoders("sd15"), adapters, torch.float32)
    stem = "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer"
    assert set(tensors) == {f"{stem}.down.weight", f"{stem}.up.weight"}
    found = tensors[f"{stem}.up.weight"] @ tensors[f"{stem}.down.weight"]
    assert torch.allclose(found, 0.5 * source.up @ source.down, rtol=1e-5, atol=1e-6)


def _diffusers_layers(kind: str) -> set[str]:
    """Dense layers of diffusers' own tiny network."""
    import diffusers

    with torch.device("meta"):
        if kind == "flux":
            network = diffusers.FluxTransformer2DModel(
                in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=32,
                num_attention_heads=2, joint_attention_dim=64, pooled_projection_dim=64,
                guidance_embeds=True, axes_dims_rope=(8, 12, 12))
        else:
            network = diffusers.Flux2Transformer2DModel(
                in_channels=128, num_layers=2, num_single_layers=2, attention_head_dim=32,
                num_attention_heads=2, joint_attention_dim=64, axes_dims_rope=(8, 8, 8, 8))
    return {path for path, module in network.named_modules()
            if isinstance(module, torch.nn.Linear)}


def _blocks(model) -> list[str]:
    return [path for path in _adapters(model, "attention and feed-forward").layers]


def _assert_each_once(model, kind: str) -> None:
    names = []
    for path, parts in network_parts(model, _blocks(model)).items():
        rows = model.model.diffusion_model.get_submodule(path).weight.shape[0]
        spans = sorted(part.rows or (0, rows) for part in parts)
        assert [first for first, _ in spans] == [sum(count for _, count in spans[:at])
                                                 for at in range(len(spans))]
        assert sum(count for _, count in spans) == rows
        names += [part.name for part in parts]
    assert len(names) == len(set(names)) and set(names) <= _diffusers_layers(kind)


def test_every_row_of_flux1_has_one_name_that_diffusers_knows():
    _assert_each_once(training_models.make_model("flux"), "flux")


def test_names_of_flux2_in_the_hosts_table_are_not_flux1s(monkeypatch):
    original = comfy.utils.flux_to_diffusers

    def with_both(config, *rest):
        again = {"single_transformer_blocks.1.attn.to_qkv_mlp_proj.weight":
                 "single_blocks.1.linear1.weight",
                 "single_transformer_blocks.1.attn.to_out.weight": "single_blocks.1.linear2.weight",
                 "transformer_blocks.0.ff.linear_in.weight": "double_blocks.0.img_mlp.0.weight"}
        return {**original(config, *rest), **again}

    monkeypatch.setattr(comfy.utils, "flux_to_diffusers", with_both)
    _assert_each_once(training_models.make_model("flux"), "flux")


def test_a_layer_that_the_host_names_twice_is_refused_before_training(monkeypatch):
    original = comfy.utils.flux_to_diffusers
    monkeypatch.setattr(comfy.utils, "flux_to_diffusers", lambda config: {
        **original(config), "single_transformer_blocks.1.attn.unheard_of.weight":
        "single_blocks.1.linear1.weight"})
    with pytest.raises(LikenessError, match="names layer `single_blocks.1.linear1` twice"):
        network_parts(training_models.make_model("flux"), ["single_blocks.1.linear1"])


def test_flux2_has_diffusers_names_of_its_own_or_none():
    model = training_models.make_model("flux2")
    table = comfy.utils.flux_to_diffusers(model.model.model_config.unet_config)
    if any(".to_qkv_mlp_proj." in name for name in table):
        _assert_each_once(model, "flux2")
    else:  # older hosts know those of FLUX.1 alone
        with pytest.raises(LikenessError, match="Diffusers' loader has no name for layer"):
            network_parts(model, _blocks(model))
