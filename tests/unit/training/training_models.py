"""Tiny models of the real architectures, training sets and fingerprints for the training tests."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_patcher
import torch
from likeness.nodes import runtime
from likeness.nodes.sockets import TrainingItem, TrainingSet
from likeness.nodes.tensors import write_conditioning, write_latent

from launcher.tiny import networks
from launcher.tiny.checkpoints import model_config

CPU = torch.device("cpu")
ARCHITECTURES = ("sd15", "sdxl", "sd3", "flux")
# What hosts note down while they sample: by whom, and of which patches.
_NOTES = ("current_patcher", "current_weight_patches_uuid", "latent_shapes")
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, uuid.UUID)
# The rest of the host's image networks, which have no checkpoint here.
NETWORKS = (*ARCHITECTURES, *networks.NETWORKS)
# Widths of text tokens and pooled text, latent channels, as the tiny models take them.
TEXT = {"sd15": (64, 0, 4), "sdxl": (128, 64, 4), "sd3": (4096, 128, 16), "flux": (64, 64, 16),
        **{name: (network.text, network.pooled, network.channels)
           for name, network in networks.NETWORKS.items()}}
_FRAMES = {name: network.frames for name, network in networks.NETWORKS.items() if network.frames}


def make_model(name: str, *, prediction: str | None = None, dtype: torch.dtype = torch.float32,
               compute: torch.dtype | None = None, seed: int = 0) -> Any:
    """A MODEL with random weights on the CPU.

    Args:
        prediction: "v" makes a UNet velocity-predicting.
        dtype: how weights are stored.
        compute: number format of the computation when it differs from the stored one.
    """
    config = model_config(name)
    config.set_inference_dtype(dtype, compute)
    if prediction == "v":
        kind = comfy.model_base.SDXL if name == "sdxl" else comfy.model_base.BaseModel
        base = kind(config, comfy.model_base.ModelType.V_PREDICTION)
    else:
        base = config.get_model({}, "", device=CPU)
    fill(base.diffusion_model, seed)
    base.eval()
    model = comfy.model_patcher.ModelPatcher(base, load_device=CPU, offload_device=CPU)
    model.likeness_name = name
    return model


def fill(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter and buffer random values that keep activations in range."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            drawn = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                value = drawn / tensor[0].numel() ** 0.5
            else:
                value = 0.1 * drawn + (0.0 if name.endswith("bias") else 1.0)
            tensor.copy_(value)


def make_training_set(folder: Path, name: str, sizes: tuple[tuple[int, int], ...] = ((16, 16),) * 3,
                      tokens: int = 12, seed: int = 0) -> TrainingSet:
    """Random latents (h, w per photo), masks and captions for a tiny model, on disk."""
    generator = torch.Generator().manual_seed(seed)
    width, pooled, channels = TEXT[name]
    files = {}
    for index in range(-1, len(sizes)):
        key = "" if index < 0 else f"caption {index}"
        options = {}
        if pooled:
            options["pooled_output"] = torch.randn(1, pooled, generator=generator)
        if name in networks.NETWORKS and networks.NETWORKS[name].masked:
            options["attention_mask"] = torch.ones(1, tokens, dtype=torch.long)
        files[key] = folder / f"{name}_text_{index}.safetensors"
        cond = torch.randn(1, tokens, width, generator=generator)
        write_conditioning(files[key], [[cond, options]])
    items = []
    for index, (height, across) in enumerate(sizes):
        path = folder / f"{name}_latent_{index}.safetensors"
        mask = torch.zeros(height, across)
        mask[height // 4: height // 2, across // 4: across // 2] = 1.0
        shape = (channels, *([_FRAMES[name]] if name in _FRAMES else []), height, across)
        write_latent(path, 5 * torch.randn(shape, generator=generator), mask)
        items.append(TrainingItem(
            f"photo{index}.jpg", f"{index:064x}", f"caption {index}", (across * 8, height * 8),
            (1000, 1500), (100.0, 200.0, 100.0 + across * 16, 200.0 + height * 16), path,
            f"caption {index}"))
    return TrainingSet(tuple(items), files, folder, f"set-{name}-{seed}-{len(sizes)}",
                       "Ann", "ohwx")


def tree(model: Any) -> list[tuple]:
    """Everything that a run might leave on a loaded MODEL's module tree, as comparable values."""
    runtime.load_models([model])
    rows = []
    for path, module in model.model.named_modules():
        own = {name: value if isinstance(value, _PLAIN) else id(value)
               for name, value in vars(module).items()
               if name not in _NOTES and (not name.startswith("_") or name in (
                   "_forward_hooks", "_forward_pre_hooks"))}
        parameters = [(name, id(value), value.requires_grad, value.grad is None)
                      for name, value in module._parameters.items() if value is not None]
        buffers = [(name, id(value)) for name, value in module._buffers.items()]
        rows.append((path, type(module), sorted(own.items()), parameters, buffers))
    return rows


def weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of every weight."""
    return {name: value.detach().clone() for name, value in model.model.state_dict().items()}


def assert_same_weights(model: Any, before: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    now = model.model.state_dict()
    assert now.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(now[name], value), name
