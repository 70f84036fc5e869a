"""Products with the weights of dense layers, by the library that is fastest on this processor.

On a CPU torch leaves float32 to MKL, which keeps its best kernels for Intel's processors; oneDNN,
which torch brings too, takes half the time on AMD's (measured on a Zen with AVX-512).
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch

# Below this many rows and channels, arranging the operands costs what is saved.
_ROWS, _CHANNELS = 32, 32


def dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The product of x (..., in) with a weight (out, in) -> (..., out).

    The result is a tensor of its own: networks write into what their layers return, and autograd
    refuses that for a view made inside a function of its own, as `F.linear` would make.
    """
    flat = x.reshape(-1, x.shape[-1])
    if _wants_onednn(x, weight):
        y = _by_onednn(flat, weight, bias)
    elif bias is None:
        y = flat @ weight.t()
    else:
        y = torch.addmm(bias, flat, weight.t())
    # As torch's own matmul shapes its result.
    return torch.ops.aten._unsafe_view(y, [*x.shape[:-1], len(weight)])


def dense_input_gradient(grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The gradient of a dense layer's input from that of its output: (..., out) -> (..., in)."""
    if _wants_onednn(grad, weight):
        return dense(grad, weight.t(), None)
    return grad @ weight


def products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Each matrix of a (N, L, D) with its own of b (N, M, D): (N, L, M)."""
    if len(a) == 1:  # the other library has no product of several pairs
        return dense(a[0], b[0], None)[None]
    return torch.bmm(a, b.transpose(1, 2))


def _by_onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # Operands that lie otherwise are read a thousand times slower.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    # What torch.compile calls for a dense layer on a CPU; `to_mkldnn` would copy every weight.
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")


def _wants_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
            and x.numel() >= _ROWS * x.shape[-1] and min(weight.shape) >= _CHANNELS
            and _mkl_is_slow())


@functools.cache
def _mkl_is_slow() -> bool:
    """Whether this is a processor of AMD and torch has both libraries."""
    known = Path("/proc/cpuinfo")  # elsewhere Python itself names the maker
    maker = known.read_text() if known.is_file() else platform.processor()
    return ("AuthenticAMD" in maker and torch.backends.mkl.is_available()
            and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_linear_pointwise"))
