"""LoRA files as sd-scripts write them, through the host's loader and ours."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import pytest
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.training.export.lora import apply_lora, read_lora
from safetensors.torch import save_file

RANK, ALPHA = 4, 1.0
_UNETS = {"sd15": "Transformer2DModel", "sdxl": "SpatialTransformer"}


def _networks(name: str) -> dict[str, torch.Size]:
    """Layer names and weight shapes as sd-scripts give them: SD1 trains on diffusers' UNet, SDXL
    on one with the original names.
    """
    if name == "sdxl":
        network = training_models.make_model(name).model.diffusion_model
    else:
        diffusers = pytest.importorskip("diffusers")
        network = diffusers.UNet2DConditionModel(
            sample_size=16, block_out_channels=(32, 64, 128, 128), cross_attention_dim=64,
            attention_head_dim=4)
    layers = {}
    for path, module in network.named_modules():
        if type(module).__name__ == _UNETS[name]:
            for child, layer in module.named_modules():
                weight = getattr(layer, "weight", None)
                if child and weight is not None and weight.ndim > 1:
                    layers[f"lora_unet_{path}.{child}".replace(".", "_")] = weight.shape
    return layers


def _file(name: str, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A half-precision file with alpha, and each layer's difference in float32."""
    generator = torch.Generator().manual_seed(2)
    tensors, wanted = {}, {}
    for key, shape in _networks(name).items():
        down = 0.1 * torch.randn(RANK, *shape[1:], generator=generator)
        up = 0.1 * torch.randn(shape[0], RANK, *(1 for _ in shape[2:]), generator=generator)
        tensors |= {f"{key}.lora_down.weight": down.half(), f"{key}.lora_up.weight": up.half(),
                    f"{key}.alpha": torch.tensor(ALPHA).half()}
        product = up.half().float().flatten(1) @ down.half().float().flatten(1)
        wanted[key] = (ALPHA / RANK) * product.reshape(shape)
    path = folder / "theirs.safetensors"
    save_file(tensors, str(path), {"ss_network_module": "networks.lora"})
    return path, wanted


@pytest.mark.parametrize("name", list(_UNETS))
@pytest.mark.parametrize("stock", [True, False], ids=["stock", "ours"])
def test_a_lora_of_sd_scripts_loads_with_every_key_and_its_alpha(name, stock, tmp_path, caplog):
    model = training_models.make_model(name)
    before = training_models.weights(model)
    path, wanted = _file(name, tmp_path)
    if stock:
        patched, _ = comfy.sd.load_lora_for_models(model, None, runtime.load_weights(path), 1.0, 0)
    else:
        patched = apply_lora(model, read_lora(path)[0], 1.0)
    assert not [row for row in caplog.records if "not loaded" in row.getMessage()]
    assert len(patched.patches) == len(wanted) > 10
    runtime.load_models([patched])
    now = patched.model.state_dict()
    gains = sorted(float((now[key] - before[key]).norm()) for key in patched.patches)
    assert gains == pytest.approx(sorted(float(part.norm()) for part in wanted.values()), rel=1e-3)
