"""Random weights that depend on a tensor's name alone, and a writer that leaves zeros as holes."""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
           torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8"}
_CHUNK = 1 << 16  # bytes; a file system keeps holes in blocks no larger than this
_COMMON_TOKENS = 4096  # rows of a token table that everyday prompts touch


def seeded(name: str, shape: tuple[int, ...], *, gain: float = 1.0,
           live_rows: int | None = None) -> torch.Tensor:
    """Draw one parameter: fan-in scaled normal, norms at one, biases at zero.

    Args:
        name: decides the values, so that the same model is bit for bit the same everywhere.
        gain: factor on the standard deviation; sqrt(2) keeps ReLU networks from fading.
        live_rows: leave the rows after this many at zero, which a sparse file does not store.
    """
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "logit_scale":
        return torch.full(shape, math.log(100.0))
    if len(shape) <= 1:
        empty = leaf == "bias" or leaf == "vae_shift"
        return torch.zeros(shape) if empty else torch.ones(shape)
    values = torch.zeros(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    table = "embed" in name and "embedder" not in name
    std = 0.02 if table else gain / math.sqrt(values[0].numel())
    live = values
    if live_rows is not None and shape[0] > live_rows:
        live = values[:_COMMON_TOKENS] if table else values[:live_rows]
        if table:
            values[-2:].normal_(0.0, std, generator=generator)  # start and end of the prompt
    live.normal_(0.0, std, generator=generator)
    return values


def fill(shapes: Mapping[str, torch.Tensor], dtype: torch.dtype, prefix: str = "", *,
         gain: float = 1.0, live_rows: int | None = None) -> dict[str, torch.Tensor]:
    """Give every tensor of a (meta) state dict seeded values; integers become 0, 1, 2, ..."""
    filled = {}
    for name, tensor in shapes.items():
        if tensor.dtype.is_floating_point:
            drawn = seeded(prefix + name, tuple(tensor.shape), gain=gain, live_rows=live_rows)
            filled[name] = drawn.to(dtype)
        else:
            filled[name] = torch.arange(tensor.numel(), dtype=tensor.dtype).reshape(tensor.shape)
    return filled


def write_sparse(path: Path, tensors: Mapping[str, torch.Tensor],
                 metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that takes no disk space for stretches of zeros.

    The file appears under its name only when it is complete.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor in tensors.values():
                _write_holes(file, tensor.contiguous().view(-1).view(torch.uint8))
            file.truncate(file.tell())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_holes(file, data: torch.Tensor) -> None:
    for chunk in data.split(_CHUNK):
        if chunk.any():
            file.write(chunk.numpy().tobytes())
        else:
            file.seek(chunk.numel(), os.SEEK_CUR)
