"""MobileFaceNet on torch, with the vendored weights: the second recogniser that needs no download.

Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices", 2018 (arXiv 1804.07573), as the project sirius-ai/MobileFaceNet_TF trained it.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
import torch.nn.functional as F

from ...sockets import Face
from ..align import ARCFACE_112, align, five_points
from . import backends

ID = "mobilefacenet"
SIDE = 112
# Strides of the inverted residual blocks; those of stride 1 add their input.
_STRIDES = (2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1)


def embed(pixels: np.ndarray, face: Face) -> np.ndarray:
    """Embed a face of an (H, W, 3) uint8 RGB picture: (192,) float32, not normalised."""
    return embed_crop(align(pixels, five_points(face), ARCFACE_112, SIDE))


def embed_crop(crop: np.ndarray) -> np.ndarray:
    """Embed one aligned (112, 112, 3) uint8 RGB crop: (192,) float32."""
    tensor = torch.from_numpy(crop.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return both_sides(_network(), tensor)[0].numpy().copy()


def both_sides(network: MobileFaceNet, crops: torch.Tensor) -> torch.Tensor:
    """Sum the unit embeddings of crops (B, 3, 112, 112) and of their mirror images: (B, 192)."""
    rows = network(torch.cat([crops, crops.flip(-1)]))
    return sum(F.normalize(rows, dim=1).chunk(2))


def differentiable_network(device: torch.device) -> MobileFaceNet:
    """The network for a loss, frozen, on a device; see `both_sides`.

    On the CPU it is the one that `embed` uses, elsewhere a copy that lives as long as its owner.
    """
    network = _network()
    return network if device.type == "cpu" else copy.deepcopy(network).to(device)


class MobileFaceNet(torch.nn.Module):
    """48 convolutions from (B, 3, 112, 112) RGB in [0, 255] to (B, 192).

    Batch norms are folded into the convolutions; PReLU has a slope per channel.
    """

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in weights.items():
            # Channels last: an eighth less time on the CPU.
            form = torch.channels_last if value.dim() == 4 else torch.contiguous_format
            self.register_buffer(name.replace(".", "_"), value.contiguous(memory_format=form))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = ((image - 127.5) / 128).contiguous(memory_format=torch.channels_last)
        x = self._convolve(x, "stem", stride=2)
        x = self._convolve(x, "stem_depthwise")
        x = self._convolve(x, "entry")
        for number, stride in enumerate(_STRIDES):
            inner = self._convolve(x, f"blocks_{number}_expand")
            inner = self._convolve(inner, f"blocks_{number}_depthwise", stride)
            inner = self._convolve(inner, f"blocks_{number}_project")
            x = inner + x if stride == 1 else inner
        x = self._convolve(x, "head")
        for name in ("gather", "mix", "embedding"):
            x = self._convolve(x, name)
        return x.flatten(1)

    def _convolve(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        border = weight.shape[-1] == 3
        if border and stride == 2:
            # TensorFlow's "same": an even side gets its one border pixel at the end.
            x, border = F.pad(x, (0, 1, 0, 1)), False
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, bias, stride, padding=int(border), groups=groups)
        slope = getattr(self, f"{name}_slope", None)
        return x if slope is None else F.prelu(x, slope)


@functools.cache
def _network() -> MobileFaceNet:
    from safetensors.torch import load_file

    # A prompt runs in inference mode; the cached network must also serve outside of it.
    with torch.inference_mode(False):
        return MobileFaceNet({name: value.clone() for name, value
                              in load_file(backends.require(ID)[0]).items()})
