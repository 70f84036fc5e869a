"""dlib's face recognition ResNet on torch, with the vendored 8-bit weights.

Architecture: dlib's dnn_face_recognition_ex.cpp (anet_type). King, "High quality face recognition
with deep metric learning", dlib blog, 2017.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
import torch.nn.functional as F

from ..align import similarity_transform, warp
from . import backends

CHIP = 150
_PADDING = 0.25
_MEAN = (122.782, 117.001, 104.298)
# MediaPipe's image-right eye corners (outer, inner), image-left ones, base of the nose, and where
# dlib's get_face_chip_details puts the same five in a unit square.
_POINTS = [263, 362, 33, 133, 2]
_TEMPLATE = np.array([
    (0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677),
    (0.1205750620789, 0.2137274526848), (0.3340850613712, 0.2290642403242),
    (0.4901123135679, 0.6277975316475)])
# The same points as a mirror shows them: the eyes change sides, outer corners stay outer ones.
_MIRRORED = [2, 3, 0, 1, 4]


def chip(pixels: np.ndarray, landmarks: np.ndarray, size: int = CHIP,
         padding: float = _PADDING) -> np.ndarray:
    """Cut the aligned face (size, size, 3) uint8 with a border of `padding` times the face."""
    return warp(pixels, chip_matrix(alignment_points(landmarks), size, padding), size)


def alignment_points(landmarks: np.ndarray) -> np.ndarray:
    """The five points by which a face is aligned: (5, 2), pixels of the picture."""
    return landmarks[_POINTS, :2]


def mirrored_points(points: np.ndarray, width: float) -> np.ndarray:
    """Where alignment points (5, 2) lie in the mirrored picture, `width` pixels wide."""
    return (points * (-1, 1) + (width, 0))[_MIRRORED]


def chip_matrix(points: np.ndarray, size: int = CHIP, padding: float = _PADDING) -> np.ndarray:
    """The transform (2, 3) from a picture with these alignment points (5, 2) to its chip."""
    return similarity_transform(points, (_TEMPLATE + padding) / (2 * padding + 1) * size)


def embed_chip(face_chip: np.ndarray) -> np.ndarray:
    """Embed one (150, 150, 3) uint8 RGB chip: (128,) float32."""
    tensor = torch.from_numpy(face_chip.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return _network()(tensor)[0].numpy().copy()


def differentiable_network(device: torch.device) -> FaceResNet:
    """The network for a loss, frozen, on a device: chips (B, 3, 150, 150) RGB in [0, 255].

    On the CPU it is the one that `embed_chip` uses, elsewhere a copy that lives as long as its
    owner.
    """
    network = _network()
    return network if device.type == "cpu" else copy.deepcopy(network).to(device)


class FaceResNet(torch.nn.Module):
    """29 convolutions from (B, 3, 150, 150) RGB in [0, 255] to (B, 128)."""

    _BLOCKS = ("conv32_1", "conv32_2", "conv32_3", "conv64_down", "conv64_1", "conv64_2",
               "conv64_3", "conv128_down", "conv128_1", "conv128_2", "conv256_down", "conv256_1",
               "conv256_2", "conv256_down_out")

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name in {key.rsplit(".", 1)[0] for key in weights if key.endswith(".gain")}:
            gain = weights[f"{name}.gain"]  # dlib's affine layer, folded into its convolution
            flat = name.replace(".", "_")
            weight = weights[f"{name}.weight"] * gain[:, None, None, None]
            # Channels last: a fifth to a third less time on the CPU for single chips.
            self.register_buffer(f"{flat}_weight",
                                 weight.contiguous(memory_format=torch.channels_last))
            bias = weights[f"{name}.bias"] * gain + weights[f"{name}.shift"]
            self.register_buffer(f"{flat}_bias", bias)
        self.register_buffer("fc", weights["fc"])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = (image - image.new_tensor(_MEAN).view(1, 3, 1, 1)) / 255
        x = F.max_pool2d(F.relu(self._convolve(x, "conv32_down", stride=2, padding=0)), 3, 2)
        for block in self._BLOCKS:
            x = self._residual(x, block, down="down" in block)
        return F.linear(x.mean((2, 3)), self.fc)

    def _convolve(self, x: torch.Tensor, name: str, stride: int = 1,
                  padding: int = 1) -> torch.Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        return F.conv2d(x, weight, bias, stride=stride, padding=padding)

    def _residual(self, x: torch.Tensor, block: str, down: bool) -> torch.Tensor:
        stride, padding = (2, 0) if down else (1, 1)
        inner = F.relu(self._convolve(x, f"{block}_conv1", stride, padding))
        inner = self._convolve(inner, f"{block}_conv2")
        outer = F.avg_pool2d(x, 2, 2) if down else x
        # dlib adds tensors of unequal size as if the smaller one were padded with zeros.
        return F.relu(_pad_like(inner, outer) + _pad_like(outer, inner))


def _pad_like(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    channels, height, width = (max(b - a, 0) for a, b in
                               zip(x.shape[1:], other.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels))


@functools.cache
def _network() -> FaceResNet:
    from safetensors.torch import load_file

    stored = load_file(backends.require("dlib")[0])
    weights = {}
    for name, tensor in stored.items():
        if name.endswith(".range"):
            continue
        span = stored.get(f"{name}.range")
        weights[name] = tensor if span is None else tensor.float() * span[0] + span[1]
    # A prompt runs in inference mode; the cached network must also serve outside of it.
    with torch.inference_mode(False):
        return FaceResNet({name: tensor.clone() for name, tensor in weights.items()})
