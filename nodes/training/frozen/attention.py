"""Attention that training steps run: torch's own everywhere, but for bfloat16 on a CPU.

There torch's fused backward takes longer than in float32, and subtracts a rounded output from a
rounded product: where the values share an offset its gradients are off by a per cent. The products
below keep less, are nearer to the truth and take 0.4 to 0.9 of the time (77 to 4096 keys, one core
of a Zen with AVX-512).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import comfy.ldm.modules.attention
import torch
from torch.autograd.function import once_differentiable

from .dense import products

# Scores that are held at once: as many as a core's own cache takes in float32.
_TILE = 1 << 19


def training_attention(_chosen: Callable[..., Any], q: torch.Tensor, k: torch.Tensor,
                       v: torch.Tensor, heads: int, mask: torch.Tensor | None = None,
                       *args: Any, skip_reshape: bool = False, skip_output_reshape: bool = False,
                       **kwargs: Any) -> torch.Tensor:
    """An `optimized_attention_override` that always has a backward pass.

    The host's choice may have none (Sage, Flash wrappers), or chunk by the memory free at the
    moment, so that a checkpoint's second run differs from the first.

    Args:
        q: (B, L, heads * D), or (B, heads, L, D) with `skip_reshape`; k and v alike, (B, M, ...).

    Returns:
        (B, L, heads * D), or (B, heads, L, D) with `skip_output_reshape`.
    """
    unusual = args or mask is not None or kwargs.get("enable_gqa") or kwargs.get("scale")
    if unusual or not _in_products(q, k, v):
        return comfy.ldm.modules.attention.attention_pytorch(
            q, k, v, heads, mask, *args, skip_reshape=skip_reshape,
            skip_output_reshape=skip_output_reshape, **kwargs)
    if not skip_reshape:
        q, k, v = (part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in (q, k, v))
    y = _Products.apply(q, k, v)
    return y.unflatten(-1, (heads, -1)).transpose(1, 2) if skip_output_reshape else y


def _in_products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    spread = any(part.shape[:-2] != q.shape[:-2] for part in (k, v))  # one row or head for all
    return (q.device.type == "cpu" and not spread
            and q.dtype == k.dtype == v.dtype == torch.bfloat16)


@functools.cache
def _format() -> torch.dtype:
    """What products are fast in whose results are rounded to bfloat16 anyway."""
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    fast = asked is not None and torch.backends.mkldnn.is_available() and asked()
    return torch.bfloat16 if fast else torch.float32


class _Products(torch.autograd.Function):
    """softmax(q k^T / sqrt(D)) v in tiles, whose scores the backward pass computes again.

    Takes q (B, H, L, D), k and v (B, H, M, D); returns (B, L, H * D).
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(q, k, v)
        batch, heads, rows, _ = q.shape
        y, kind = q.new_empty(batch, rows, heads, v.shape[-1]), _format()
        for sample, head, row in _tiles(q, k):
            shares = _shares(q[sample, head, row], k[sample, head]).to(kind)
            own_v = v[sample, head].to(kind)
            y[sample, row, head] = products(shares, own_v.transpose(1, 2)).transpose(0, 1)
        return y.view(batch, rows, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v = ctx.saved_tensors
        scale, kind = q.shape[-1] ** -0.5, _format()
        grad = grad.unflatten(-1, (q.shape[1], -1)).transpose(1, 2)
        grad_q = torch.empty_like(q)
        # Tiles of the same head's rows add up.
        grad_k, grad_v = (torch.zeros_like(part, dtype=torch.float32) for part in (k, v))
        for sample, head, row in _tiles(q, k):
            some_q, some_grad = q[sample, head, row], grad[sample, head, row]
            own_k, own_v = k[sample, head], v[sample, head]
            shares = _shares(some_q, own_k)
            grad_v[sample, head] += products(shares.to(kind).transpose(1, 2),
                                             some_grad.to(kind).transpose(1, 2))
            slopes = products(some_grad.float(), own_v.float())
            # Of shares (p): p * (slope - sum of p * slopes).
            slopes = torch.ops.aten._softmax_backward_data(slopes, shares, -1, shares.dtype)
            slopes = slopes.mul_(scale).to(kind)
            grad_q[sample, head, row] = products(slopes, own_k.to(kind).transpose(1, 2))
            grad_k[sample, head] += products(slopes.transpose(1, 2),
                                             some_q.to(kind).transpose(1, 2))
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)


def _shares(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """How much of each key a query takes, float32: (N, L, D), (N, M, D) -> (N, L, M)."""
    return torch.softmax(products(q.float() * q.shape[-1] ** -0.5, k.float()), -1)


def _tiles(q: torch.Tensor, k: torch.Tensor) -> Iterator[tuple[int, slice, slice]]:
    """Sample, heads and rows of as many scores as are held at once: whole heads where they fit."""
    batch, heads, rows, _ = q.shape
    keys = k.shape[2]
    high = max(1, _TILE // (rows * keys))
    long = rows if rows * keys <= _TILE else max(1, _TILE // keys)
    for sample in range(batch):
        for head in range(0, heads, high):
            for row in range(0, rows, long):
                yield sample, slice(head, head + high), slice(row, row + long)
