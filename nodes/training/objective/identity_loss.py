"""A recogniser's view of the estimate: the decoded face must be nearer to the person.

The estimate of the clean picture is decoded round the face, aligned by the landmarks of the true
photo (no detector works on noisy pictures) and compared by dlib's recogniser. Aligning by the truth
is from WithAnyone (https://arxiv.org/abs/2510.14975), asking at low noise alone from PortraitBooth
(https://arxiv.org/abs/2312.06354).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import LikenessError
from ...faces.align import inverse
from ...faces.recognise import dlib_resnet
from ...faces.recognise.embed import centre, subject_embeddings
from ...sockets import Subject
from ..adapters.attach import attach
from ..frozen.scope import Scope
from ..parametrisation import signal_to_noise
from ..recipes.base import Recipe

Points = Sequence[tuple[float, float]]  # of `TrainingItem.points`, pixels of the whole crop

# Latent cells decoded round the chip, so that what a decoder's convolutions see is the picture.
_MARGIN = 4
RECOGNISER = "dlib"


def target_of(subject: Subject) -> np.ndarray:
    """What the estimate should look like to the recogniser: (128,) float32.

    The centre of the reference photos. A photo's own embedding would reward a copy of its light
    and expression, for which the training loss already asks; the centre is what the photos share.
    Held-out photos stay out, they judge.
    """
    rows = subject_embeddings(subject, RECOGNISER)[:len(subject.references)]
    return centre(rows, RECOGNISER)


class IdentityLoss:
    """The squared distance of decoded faces to a person, in the recogniser's own metric.

    Squared, so that the pull fades as the faces come near; at dlib's distances the same person
    costs about 0.1, somebody else 0.4 to 0.8.

    Args:
        vae: the host's VAE object of the model.
        target: (128,) from `target_of`.
        device: where the model computes.

    Raises:
        LikenessError: there is no VAE.
    """

    def __init__(self, vae: Any, target: np.ndarray, recipe: Recipe, device: torch.device) -> None:
        if vae is None:
            raise LikenessError("The identity loss needs the model's VAE to decode pictures; "
                                "connect it to Train or set `identity_weight` to 0.")
        self.vae, self.recipe, self.device = vae, recipe, device
        # Half precision overflows in the decoders of SDXL and its relatives.
        self.dtype = torch.float32 if vae.vae_dtype == torch.float16 else vae.vae_dtype
        self.scale = int(vae.spacial_compression_decode())  # pixels per latent cell
        with torch.inference_mode(False):
            self.network = dlib_resnet.differentiable_network(device)
            self.target = torch.from_numpy(np.array(target, np.float32)).to(device)

    @property
    def patcher(self) -> Any:
        """What has to be on the compute device, together with the model, while a loss is asked."""
        return self.vae.patcher

    def starts_at(self) -> int:
        """The first step, counted from 0, at which the recogniser is asked."""
        return math.ceil(self.recipe.identity_from * self.recipe.steps)

    def active(self, step: int) -> bool:
        """Whether a step, counted from 0, is late enough."""
        return self.recipe.identity_weight > 0 and step >= self.starts_at()

    def attach(self, scope: Scope) -> None:
        """Make the VAE run frozen and differentiable until the scope ends."""
        network = self.vae.first_stage_model
        attach(scope, network, network, None, self.recipe.gradient_checkpointing)
        for module in network.modules():
            # Norms cast their weights to the input's format only when told to.
            if hasattr(module, "comfy_cast_weights"):
                scope.set_attribute(module, "comfy_cast_weights", True)
            # The host's choice depends on the memory free at the moment, or has no backward pass.
            if "optimized_attention" in vars(module):
                scope.set_attribute(module, "optimized_attention", _attention)

    def loss(self, estimate: torch.Tensor, base: Any, sigmas: torch.Tensor,
             points: Sequence[Points]) -> torch.Tensor | None:
        """The squared distance of each sample to the person: (B,), 0 where it is not asked.

        Args:
            estimate: (B, C, ..., h, w) x0 at the model's scale.
            base: the host's model object.
            sigmas: (B,) noise levels of the samples.
            points: each sample's alignment points; empty where a sample shows no known face.

        Returns:
            None when no sample has a face and little enough noise; nothing is decoded then.
        """
        snr = signal_to_noise(base.model_sampling, sigmas, 1)
        rows = [row for row, known in enumerate(points)
                if len(known) and snr[row] >= self.recipe.identity_snr]
        if not rows:
            return None
        latents = base.process_latent_out(estimate[rows].float())
        embedded = self.embed(latents, [np.asarray(points[row], np.float64) for row in rows])
        distances = (embedded - self.target).square().sum(1)
        return distances.new_zeros(len(points)).index_put(
            (torch.tensor(rows, device=distances.device),), distances)

    def decoded_shape(self, latent: Sequence[int], points: Points) -> tuple[int, ...]:
        """(1, C, ..., rows, columns) of what is decoded for a face of a latent (C, ..., h, w)."""
        span = _cells(np.asarray(points, np.float64), self.scale)
        columns, rows = (min(limit, int(size)) for limit, size in
                         zip((latent[-1], latent[-2]), span[1] - span[0], strict=True))
        return 1, *latent[:-2], rows, columns

    def embed(self, latents: torch.Tensor, points: Sequence[np.ndarray]) -> torch.Tensor:
        """Embed the faces of raw latents (B, C, ..., h, w) with points (5, 2) each: (B, 128)."""
        height, width = latents.shape[-2:]
        spans = [_cells(known, self.scale) for known in points]
        # One size for all rows, so that they are decoded together.
        rows, columns = (min(limit, max(int(span[1, axis] - span[0, axis]) for span in spans))
                         for axis, limit in ((1, height), (0, width)))
        corners = [(_start(span[:, 0], columns, width), _start(span[:, 1], rows, height))
                   for span in spans]
        cut = torch.stack([latent[..., top:top + rows, left:left + columns]
                           for latent, (left, top) in zip(latents, corners, strict=True)])
        pictures = self._decode(cut)
        chips = [cut_chip(picture, known - self.scale * np.array(corner))
                 for picture, known, corner in zip(pictures, points, corners, strict=True)]
        return self.network(255 * torch.stack(chips))

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Raw latents to pictures (B, 3, H, W) in [0, 1], float32."""
        decoded = self.vae.first_stage_model.decode(latents.to(self.dtype))
        # The host's output function may write in place into what the decoder keeps for backward.
        pictures = self.vae.process_output(decoded.float().clone())
        return pictures[:, :, 0] if pictures.ndim == 5 else pictures


def cut_chip(picture: torch.Tensor, points: np.ndarray) -> torch.Tensor:
    """Align a face differentiably as `dlib_resnet.chip` does: (3, H, W) to (3, 150, 150).

    Args:
        points: (5, 2) alignment points in pixels of the picture.
    """
    back = inverse(dlib_resnet.chip_matrix(points))  # chip to picture
    factor = int(np.sqrt(abs(np.linalg.det(back[:, :2]))))
    image = picture[None]
    if factor > 1:
        # A large face would alias when a chip's pixel reads single pixels of it.
        image = F.avg_pool2d(image, factor, ceil_mode=True, count_include_pad=False)
        back = back / factor
    height, width = image.shape[-2:]
    across = np.arange(dlib_resnet.CHIP) + 0.5
    chip = np.stack(np.meshgrid(across, across), -1)
    place = (chip @ back[:, :2].T + back[:, 2]) * 2 / (width, height) - 1
    grid = torch.from_numpy(place.astype(np.float32)).to(picture.device)[None]
    drawn = F.grid_sample(image, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return drawn[0].clamp(0, 1)


def _cells(points: np.ndarray, scale: int) -> np.ndarray:
    """The latent cells that a chip reads, with their margin: ((left, top), (right, bottom))."""
    back = inverse(dlib_resnet.chip_matrix(points))
    size = dlib_resnet.CHIP
    corners = np.array([(0, 0), (size, 0), (0, size), (size, size)]) @ back[:, :2].T + back[:, 2]
    return np.stack([np.floor(corners.min(0) / scale) - _MARGIN,
                     np.ceil(corners.max(0) / scale) + _MARGIN])


def _start(span: np.ndarray, length: int, limit: int) -> int:
    """Where `length` cells begin that lie round the middle of a span and inside the latent."""
    return min(max(round((span[0] + span[1] - length) / 2), 0), limit - length)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention among all places of feature maps (B, C, ..., h, w), one head."""
    flat = (x.flatten(2).transpose(1, 2)[:, None] for x in (q, k, v))
    out = F.scaled_dot_product_attention(*flat)
    return out[:, 0].transpose(1, 2).reshape(q.shape)
