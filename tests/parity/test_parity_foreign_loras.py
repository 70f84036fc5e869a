"""LoRAs that PEFT and diffusers have made give the same picture through Apply Trained."""

from __future__ import annotations

import json

import diffusers
import pytest
import text_models
import torch
import training_models
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from likeness.nodes import runtime
from likeness.nodes.training.apply.trained import apply_trained
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict
from references import host_output, make_reference, network_inputs
from safetensors.torch import save_file

TOLERANCE = 1e-3  # of what the LoRA changes
PIPELINES = {"sd15": diffusers.StableDiffusionPipeline,
             "sdxl": diffusers.StableDiffusionXLPipeline,
             "sd3": diffusers.StableDiffusion3Pipeline, "flux": diffusers.FluxPipeline}
# Ends of paths: attention, feed-forward, whole fused rows, convolutions, reordered rows.
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "add_k_proj", "to_add_out",
          "proj_mlp", "conv1", "proj_in", "norm_out.linear"]
KINDS = {
    "lora": LoraConfig(r=4, lora_alpha=16, target_modules=LAYERS, init_lora_weights=False),
    "rslora": LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=LAYERS,
                         init_lora_weights=False),
    "patterns": LoraConfig(r=4, lora_alpha=2, rank_pattern={"to_k": 6}, target_modules=LAYERS,
                           alpha_pattern={"to_k": 12, "attn.*to_q": 8}, init_lora_weights=False),
    "dora": LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=LAYERS,
                       init_lora_weights=False),
    "loha": LoHaConfig(r=4, alpha=2, target_modules=["to_q", "to_v"], init_weights=False),
    "lokr": LoKrConfig(r=4, alpha=2, target_modules=["to_q", "to_v"], init_weights=False),
    "lokr of whole factors": LoKrConfig(r=64, alpha=8, target_modules=["to_q", "to_v"],
                                        init_weights=False),
}


def _trained(name: str, kind: str):
    """A tiny host model, its CLIP's maker, the diffusers twin in PEFT's hands, the same inputs."""
    model = training_models.make_model(name)
    base = model.model
    reference = make_reference(name, base.model_config.unet_config,
                               base.diffusion_model.state_dict())
    wrapped = get_peft_model(reference.network, KINDS[kind])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for path, value in wrapped.named_parameters():
            if "magnitude" in path:
                value.mul_(1 + 0.2 * torch.randn(value.shape, generator=generator))
            elif any(part in path for part in ("lora_", "hada_", "lokr_")):
                spread = 0.05 if "lora_" in path else 0.3
                value.copy_(spread * torch.randn(value.shape, generator=generator))
    inputs = network_inputs(name, base)
    return model, reference, wrapped, (inputs, host_output(name, model, inputs))


def _assert_same_picture(name, model, path, reference, given, folder, layers=None):
    inputs, before = given
    applied = apply_trained(model, text_models.make_clip(name, folder), path, None, 1.0, 1.0)
    assert not applied.report["warnings"] and applied.report["layers_left_out"] == 0
    assert layers is None or applied.report["layers"] == layers
    runtime.load_models([applied.model])
    found = host_output(name, applied.model, inputs)
    with torch.no_grad():
        wanted = reference.predict(*inputs)
    assert (wanted - before).norm() > 0.02 * before.norm()
    assert (found - wanted).norm() < TOLERANCE * (wanted - before).norm()


def _adapted(wrapped) -> int:
    return sum(hasattr(module, "base_layer") for module in wrapped.modules())


@pytest.mark.parametrize(("name", "kind"), [
    *((name, kind) for name in training_models.ARCHITECTURES for kind in ("lora", "dora")),
    *(("flux", kind) for kind in KINDS if kind not in ("lora", "dora")), ("sd15", "lokr")])
def test_what_peft_saves_gives_its_picture(name, kind, tmp_path):
    model, reference, wrapped, inputs = _trained(name, kind)
    wrapped.save_pretrained(tmp_path)
    _assert_same_picture(name, model, tmp_path / "adapter_model.safetensors", reference, inputs,
                         tmp_path, _adapted(wrapped))


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_a_state_of_peft_keeps_its_adapters_name(name, tmp_path):
    model, reference, wrapped, inputs = _trained(name, "dora")
    wrapped.save_pretrained(tmp_path)
    state = {path: value.detach().clone() for path, value in wrapped.state_dict().items()
             if "lora_" in path}
    assert any(".lora_A.default.weight" in path for path in state)
    save_file(state, str(tmp_path / "state.safetensors"))
    torch.save(state, tmp_path / "state.ckpt")
    for end in ("safetensors", "ckpt"):
        _assert_same_picture(name, model, tmp_path / f"state.{end}", reference, inputs, tmp_path)


@pytest.mark.parametrize(("name", "kind"), [
    *((name, "dora") for name in training_models.ARCHITECTURES), ("sd15", "lora"),
    ("flux", "rslora"), ("flux", "patterns")])
def test_what_diffusers_saves_gives_its_picture(name, kind, tmp_path):
    model, reference, wrapped, inputs = _trained(name, kind)
    network = "unet" if name in ("sd15", "sdxl") else "transformer"
    state = convert_state_dict_to_diffusers(
        {path.removeprefix("base_model.model."): value for path, value in
         get_peft_model_state_dict(wrapped).items()})
    wrapped.base_model.model.peft_config = wrapped.peft_config
    PIPELINES[name].save_lora_weights(tmp_path, **{f"{network}_lora_layers": state},
                                      **_collate_lora_metadata({network: wrapped}))
    _assert_same_picture(name, model, tmp_path / "pytorch_lora_weights.safetensors", reference,
                         inputs, tmp_path, _adapted(wrapped))


HEADS = {  # of PEFT's paths, in files of these trainers
    "ai-toolkit": lambda path: f"diffusion_model.{path}",
    "DiffSynth": lambda path: path,
    "OneTrainer": lambda path: f"lora_transformer_{path.replace('.', '_')}",
    "SimpleTuner": lambda path: f"lycoris_{path.replace('.', '_')}",
    "musubi": lambda path: f"lora_unet_{path.replace('.', '_')}"}


@pytest.mark.parametrize(("name", "trainer"), [
    ("flux", "ai-toolkit"), ("sd3", "ai-toolkit"), ("flux", "DiffSynth"), ("sdxl", "OneTrainer"),
    ("sd3", "OneTrainer"), ("flux", "SimpleTuner"), ("sd3", "musubi"), ("flux", "musubi")])
def test_other_trainers_names_of_diffusers_layers_give_the_picture(name, trainer, tmp_path):
    model, reference, wrapped, inputs = _trained(name, "lora")
    tensors = {}
    for path, value in get_peft_model_state_dict(wrapped).items():
        stem, _, part = path.removeprefix("base_model.model.").partition(".lora_")
        side = "down" if part.startswith("A") else "up"
        tensors[f"{HEADS[trainer](stem)}.lora_{side}.weight"] = value
        tensors[f"{HEADS[trainer](stem)}.alpha"] = torch.tensor(16.0)
    save_file(tensors, str(tmp_path / "theirs.safetensors"))
    _assert_same_picture(name, model, tmp_path / "theirs.safetensors", reference, inputs, tmp_path,
                         _adapted(wrapped))


def test_lengths_that_diffusers_leaves_in_another_spelling_are_read(tmp_path):
    model, reference, wrapped, inputs = _trained("sd15", "dora")
    state = {f"unet.{path.removeprefix('base_model.model.')}": value for path, value in
             get_peft_model_state_dict(wrapped).items()}
    tensors = convert_state_dict_to_kohya(state)
    for path in [path for path in tensors if path.endswith(".alpha")]:
        tensors[path] = torch.tensor(8.0)  # it writes the rank, whatever alpha was
    save_file({path: value.contiguous() for path, value in tensors.items()},
              str(tmp_path / "kohya.safetensors"))
    assert any(path.endswith("lora_magnitude_vector") for path in tensors)
    _assert_same_picture("sd15", model, tmp_path / "kohya.safetensors", reference, inputs,
                         tmp_path, _adapted(wrapped))


def test_a_neighbours_settings_are_not_taken_and_a_missing_alpha_is_told(tmp_path):
    model, _, wrapped, _ = _trained("sd15", "lora")
    wrapped.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "r": 8}))
    clip = text_models.make_clip("sd15", tmp_path)
    applied = apply_trained(model, clip, tmp_path / "adapter_model.safetensors", None, 1.0, 1.0)
    (warning,) = applied.report["warnings"]
    assert "does not say its alpha" in warning and "adapter_config.json" in warning
