"""What comfy-kitchen's rotations and norms compute, written out, for witnesses in double precision.

Its kernels take no float64 and have no backward pass. Nothing of the training code is used here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

Pair = tuple[torch.Tensor, torch.Tensor]


def rotated(x: torch.Tensor, matrices: torch.Tensor, halves: bool = False) -> torch.Tensor:
    """Pairs of x (..., 2 n), neighbours or one of each half, by matrices (..., n, 2, 2)."""
    half = x.shape[-1] // 2
    first, second = (x[..., :half], x[..., half:]) if halves else (x[..., 0::2], x[..., 1::2])
    if matrices.ndim > 4 and x.shape[2] != 1 and matrices.shape[2] not in (1, x.shape[2]):
        matrices = matrices[:, :, :x.shape[2]]
    turned = [matrices[..., row, 0] * first + matrices[..., row, 1] * second for row in (0, 1)]
    return torch.cat(turned, -1) if halves else torch.stack(turned, -1).flatten(-2)


def normed(x: torch.Tensor, scale: torch.Tensor | None = None,
           epsilon: float = 1e-6) -> torch.Tensor:
    """Each last axis over its root mean square."""
    unit = x * (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return unit if scale is None else unit * scale


def apply_rope(q: torch.Tensor, k: torch.Tensor, matrices: torch.Tensor) -> Pair:
    return rotated(q, matrices), rotated(k, matrices)


def apply_rope1(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    return rotated(x, matrices)


def apply_rope_split_half(q: torch.Tensor, k: torch.Tensor, matrices: torch.Tensor) -> Pair:
    return rotated(q, matrices, True), rotated(k, matrices, True)


def apply_rope_split_half1(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    return rotated(x, matrices, True)


def rms_rope(q: torch.Tensor, k: torch.Tensor, matrices: torch.Tensor, q_scale: torch.Tensor,
             k_scale: torch.Tensor, epsilon: float) -> Pair:
    return (rotated(normed(q, q_scale, epsilon), matrices),
            rotated(normed(k, k_scale, epsilon), matrices))


def rms_rope1(x: torch.Tensor, matrices: torch.Tensor, scale: torch.Tensor,
              epsilon: float) -> torch.Tensor:
    return rotated(normed(x, scale, epsilon), matrices)


def rms_rope_split_half(q: torch.Tensor, k: torch.Tensor, matrices: torch.Tensor,
                        q_scale: torch.Tensor, k_scale: torch.Tensor, epsilon: float) -> Pair:
    return (rotated(normed(q, q_scale, epsilon), matrices, True),
            rotated(normed(k, k_scale, epsilon), matrices, True))


def rms_adaln(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor,
              epsilon: float = 1e-6) -> torch.Tensor:
    return normed(x, None, epsilon) * (1 + scale) + shift


FORMULAS = (apply_rope, apply_rope1, apply_rope_split_half, apply_rope_split_half1, rms_rope,
            rms_rope1, rms_rope_split_half, rms_adaln)


@contextmanager
def formulas_for_kernels() -> Iterator[None]:
    """While this lasts a host that has the kernels computes by these formulas instead."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            import comfy_kitchen
        except ImportError:  # the host has none
            yield
            return
        for formula in FORMULAS:
            patch.setattr(comfy_kitchen, formula.__name__, formula)
        yield
