"""How a network of the host is made to run frozen, with adapters beside some layers."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from torch import nn

from ..frozen import layers as frozen
from ..frozen.beside import around, running
from ..frozen.host_operations import attach_operations, out_of_place, writes_into_input
from ..frozen.rotary import attach_rotary
from ..frozen.scope import Scope
from ..recipes.fields import Precision
from .group import Adapters


def attach(scope: Scope, owner: nn.Module, network: nn.Module, adapters: Adapters | None,
           checkpointing: bool) -> None:
    """Make a network run frozen, with adapters beside some layers, until the scope ends.

    Args:
        owner: the host's object round the network; its other small tensors (tables of noise
            levels) are made fit for autograd too.
        network: a diffusion model, a text encoder or a decoder.

    Raises:
        LikenessError: a layer that cannot be read, or that something else has replaced.
    """
    adapted = dict(adapters.forwards(network)) if adapters is not None else {}
    large = []
    for path, module in network.named_modules():
        if frozen.is_linear(module) or frozen.is_conv(module):
            frozen.check_layer(path, module)
            large.append(module)
            run = adapted.get(module) or (lambda x, module=module: frozen.run(module, x))
            others = running(module)
            if others:  # the host's injection is in force, and comes back with the scope's end
                scope.set_attribute(module, "forward", around(run, others))
            else:
                scope.override_forward(module, run)
        elif frozen.is_norm(module):
            scope.override_forward(module, frozen.norm_on_copy(module))
    attach_operations(scope)
    attach_rotary(scope)
    scope.borrow_small_tensors(owner, large)
    for block in frozen.blocks(network):
        own = forward = type(block).forward.__get__(block)
        if writes_into_input(block):
            forward = out_of_place(forward)
        if checkpointing:
            forward = frozen.checkpointed(forward)
        if forward is not own:
            scope.override_forward(block, forward)


def set_compute_type(scope: Scope, base: nn.Module, dtype: torch.dtype) -> None:
    """Make a host model compute in another number format until the scope ends."""
    scope.set_attribute(base, "manual_cast_dtype", dtype)
    for module in base.diffusion_model.modules():
        # Norms and embeddings cast their weights to the input only when told to.
        if hasattr(module, "comfy_cast_weights"):
            scope.set_attribute(module, "comfy_cast_weights", True)


def compute_type(base: Any, precision: Precision, device: torch.device) -> torch.dtype:
    """The number format a host model trains in; float16 gradients would overflow, so never that."""
    if precision is not Precision.AUTO:
        return getattr(torch, precision.value)
    own = base.manual_cast_dtype or base.get_dtype()
    if own in (torch.float32, torch.bfloat16):
        return own
    half = comfy.model_management.should_use_bf16(device)
    return torch.bfloat16 if half else torch.float32
