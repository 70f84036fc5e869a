"""LoRAs of text encoders in diffusers: the pipeline's encoders and its picture follow ours."""

from __future__ import annotations

import diffusers
import pytest
import text_models
import torch
import training_models
import transformers
from likeness.nodes.training.adapters.attach import attach
from likeness.nodes.training.adapters.group import Adapters
from likeness.nodes.training.export.diffusers import network_tensors, text_tensors
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.text.encoders import TextEncoders
from references import make_reference
from safetensors.torch import save_file

TOLERANCE = 1e-5
PROMPT = "a photo of ohwx woman in the rain"
SIZES = torch.tensor([[1500.0, 1000.0, 100.0, 50.0, 128.0, 128.0]])
RECIPE = LoRARecipe(rank=4, alpha=2.0, target="attention and feed-forward", text_encoder=True)
# Diffusers' names of the host's encoders, and their activations.
ENCODERS = {"sd15": {"clip_l": ("text_encoder", "quick_gelu")},
            "sdxl": {"clip_l": ("text_encoder", "quick_gelu"),
                     "clip_g": ("text_encoder_2", "gelu")}}


def _learned(adapters: Adapters, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in adapters.layers.values():
            layer.up.normal_(0.0, 0.2, generator=generator)


def _twin(encoder, activation: str):
    """The transformers encoder with the weights of a host one."""
    weights = encoder.transformer.state_dict()
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=4, projection_dim=64, hidden_act=activation, bos_token_id=49406,
        eos_token_id=49407, pad_token_id=1)
    projected = activation == "gelu"
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    twin = kind(config).eval()
    own = {name: value for name, value in weights.items()
           if projected or not name.startswith("text_projection.")}
    if not any(name.startswith("text_model.") for name in twin.state_dict()):
        # transformers 5 has no such level in the class without a projection.
        own = {name.removeprefix("text_model."): value for name, value in own.items()}
    missing, unexpected = twin.load_state_dict(own, strict=False)
    assert not unexpected and not [name for name in missing if "position_ids" not in name]
    return twin


def _encode(name: str, clip, pipeline) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the pipeline's own encoders make of the prompt, joined as its `encode_prompt` does."""
    ids = {key: torch.tensor([[token for token, _ in rows[0]]])
           for key, rows in clip.tokenize(PROMPT).items()}
    if name == "sd15":
        return pipeline.text_encoder(ids["l"]).last_hidden_state, None
    first = pipeline.text_encoder(ids["l"], output_hidden_states=True)
    second = pipeline.text_encoder_2(ids["g"], output_hidden_states=True)
    joined = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
    return joined, second.text_embeds


def _pipeline(name: str, network, twins):
    kind = {"sd15": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline}
    parts = {"vae": None, "tokenizer": None, "unet": network,
             "scheduler": diffusers.DDIMScheduler(), **twins}
    parts |= ({"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
              if name == "sd15" else {"tokenizer_2": None})
    return kind[name](**parts)


def _noise_of(name: str, base, predict, text, pooled) -> torch.Tensor:
    """What a network predicts for fixed latents with an encoded prompt."""
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    conds = {"c_crossattn": text}
    if name == "sdxl":
        sizes = base.embedder(SIZES.flatten()).flatten()
        conds |= {"time_ids": SIZES, "y": torch.cat([pooled, sizes[None]], 1)}
    return predict(latents, torch.tensor([411]), conds)


def _assert_same(found: torch.Tensor, wanted: torch.Tensor, before: torch.Tensor) -> None:
    change = (wanted - before).norm()
    assert change > 0.02 * before.norm()
    assert (found - wanted).norm() < TOLERANCE * wanted.norm()
    assert (found - wanted).norm() < 10 * TOLERANCE * change


@torch.no_grad()
@pytest.mark.parametrize("name", list(ENCODERS))
def test_the_pipelines_encoders_and_network_give_what_was_trained(name, tmp_path):
    model, clip = training_models.make_model(name), text_models.make_clip(name, tmp_path)
    base = model.model
    text = TextEncoders(clip, RECIPE, "ohwx", "woman", generator=torch.Generator().manual_seed(1))
    adapters = Adapters(base.diffusion_model, RECIPE, torch.Generator().manual_seed(2),
                        training_models.CPU)
    _learned(text.adapters, 5)
    _learned(adapters, 6)

    def predict(latents, times, conds):
        return base.diffusion_model(latents, times, context=conds["c_crossattn"],
                                    y=conds.get("y"))

    (before, options), = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))
    plain = _noise_of(name, base, predict, before, options["pooled_output"])
    twins = {own: _twin(getattr(clip.cond_stage_model, key), activation)
             for key, (own, activation) in ENCODERS[name].items()}
    reference = make_reference(name, base.model_config.unet_config,
                               base.diffusion_model.state_dict())
    with Scope() as scope:
        text.attach(scope)
        attach(scope, base, base.diffusion_model, adapters, checkpointing=False)
        (live, options), = text.encode(PROMPT, with_trigger=False)
        pooled = options["pooled_output"]
        picture = _noise_of(name, base, predict, live, pooled)

    tensors = network_tensors(model, adapters, torch.float32)
    tensors |= text_tensors(clip, text.adapters, torch.float32)
    save_file(tensors, str(tmp_path / "ours.safetensors"))
    pipeline = _pipeline(name, reference.network, twins)
    untrained, _ = _encode(name, clip, pipeline)
    assert (untrained - before).norm() < TOLERANCE * before.norm()  # they are twins
    pipeline.load_lora_weights(str(tmp_path), weight_name="ours.safetensors")
    found, found_pooled = _encode(name, clip, pipeline)
    _assert_same(found, live, before)
    if found_pooled is not None:
        assert (found_pooled - pooled).norm() < TOLERANCE * pooled.norm()
    _assert_same(_noise_of(name, base, reference.predict, found, found_pooled), picture, plain)
