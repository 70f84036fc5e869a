"""From a face embedding (and CLIP picture features) to the tokens that cross-attention reads.

Plain functions of the file's tensors in float32 on the CPU: they run once per injection on a
handful of tokens, so nothing has to be held on, or moved to, the compute device.
Layouts: IP-Adapter FaceID and FaceID Plus, https://github.com/tencent-ailab/IP-Adapter.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

HEAD_WIDTH = 64  # of the perceiver's attention heads, in every published file

Weights = Mapping[str, torch.Tensor]


def project(weights: Weights, embeddings: torch.Tensor) -> torch.Tensor:
    """Turn face embeddings (B, D) into tokens (B, T, C): linear, GELU, linear, layer norm."""
    hidden = functional.gelu(_linear(weights, "proj.0", embeddings.float()))
    tokens = _linear(weights, "proj.2", hidden)
    width = weights["norm.weight"].shape[0]
    return _norm(weights, "norm", tokens.reshape(len(embeddings), -1, width))


def resample(weights: Weights, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Let face tokens (B, T, C) look at CLIP hidden states (B, N, H); returns (B, T, C).

    The perceiver of FaceID Plus: each layer attends from the tokens to features and tokens
    together, then a feed-forward, both with a residual (https://arxiv.org/abs/2103.03206).
    """
    part = {key.removeprefix("perceiver_resampler."): value for key, value in weights.items()
            if key.startswith("perceiver_resampler.")}
    features = _linear(part, "proj_in", features.float())
    depth = 1 + max(int(key.split(".")[1]) for key in part if key.startswith("layers."))
    for layer in range(depth):
        tokens = tokens + _attend(part, f"layers.{layer}.0", tokens, features)
        hidden = _norm(part, f"layers.{layer}.1.0", tokens)
        hidden = functional.gelu(_linear(part, f"layers.{layer}.1.1", hidden))
        tokens = tokens + _linear(part, f"layers.{layer}.1.3", hidden)
    return _norm(part, "norm_out", _linear(part, "proj_out", tokens))


def _attend(weights: Weights, name: str, tokens: torch.Tensor,
            features: torch.Tensor) -> torch.Tensor:
    features = _norm(weights, f"{name}.norm1", features)
    tokens = _norm(weights, f"{name}.norm2", tokens)
    query = _linear(weights, f"{name}.to_q", tokens)
    both = torch.cat((features, tokens), dim=1)
    key, value = _linear(weights, f"{name}.to_kv", both).chunk(2, dim=-1)
    query, key, value = (part.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2)
                         for part in (query, key, value))
    out = functional.scaled_dot_product_attention(query, key, value)
    return _linear(weights, f"{name}.to_out", out.transpose(1, 2).flatten(2))


def _linear(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    bias = weights.get(f"{name}.bias")
    return functional.linear(x, weights[f"{name}.weight"].float(),
                             None if bias is None else bias.float())


def _norm(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    weight, bias = weights[f"{name}.weight"].float(), weights[f"{name}.bias"].float()
    return functional.layer_norm(x, x.shape[-1:], weight, bias)
