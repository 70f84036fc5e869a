"""Rotary position embedding (https://arxiv.org/abs/2104.09864) with a backward pass of its own.

Autograd would undo the host's single steps one by one, sums over broadcast pairs among them; the
gradient of a rotation is the rotation by the transposed matrices.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import comfy.ldm.flux.math
import torch
from torch.autograd.function import once_differentiable

from .scope import Scope

_NAME = "apply_rope1"


def attach_rotary(scope: Scope) -> None:
    """Make the host's networks rotate queries and keys like this until the scope ends."""
    original = vars(comfy.ldm.flux.math).get(_NAME)
    if original is None:  # hosts whose rotation brings a backward pass
        return

    def rotate(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return original(x, matrices)
        return _Rotated.apply(x, matrices, original)

    # Networks that import the function by name hold it themselves.
    for name, module in list(sys.modules.items()):
        if name.startswith("comfy.ldm.") and vars(module).get(_NAME) is original:
            scope.set_attribute(module, _NAME, rotate)


class _Rotated(torch.autograd.Function):
    """Pairs of x (..., 2 n) turned by matrices (..., n, 2, 2), which learn nothing."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, matrices: torch.Tensor,
                turn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        ctx.turn = turn
        ctx.save_for_backward(matrices)
        return turn(x, matrices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        matrices, = ctx.saved_tensors
        return ctx.turn(grad, matrices.transpose(-1, -2)), None, None
