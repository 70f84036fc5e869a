"""Pictures made inside training: sampled, decoded and described as the host's own nodes do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.samplers
import numpy as np
import torch
from PIL import Image

from ... import runtime
from ...brackets import literal_tokens
from ...errors import LikenessError
from ...files import write_whole
from ...incoming import is_finite
from ...media.images import to_uint8
from ...tensors import Conditioning


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a picture is sampled.

    Raises:
        LikenessError: a number out of range, or a sampler or scheduler that the host lacks.
    """

    steps: int = 20
    cfg: float = 7.0
    sampler: str = "euler"
    scheduler: str = "normal"
    guidance: float = 3.5  # what guidance-distilled models (FLUX.1-dev) are told; others ignore it

    def __post_init__(self) -> None:
        for name, low, high in (("steps", 1, 10000), ("cfg", 0, 100), ("guidance", 0, 100)):
            if not low <= getattr(self, name) <= high:
                raise LikenessError(f"`{name}` must be {low} to {high}, got {getattr(self, name)}.")
        for name, known in (("sampler", sampler_names()), ("scheduler", scheduler_names())):
            if getattr(self, name) not in known:
                raise LikenessError(f"`{name}` must be one of {', '.join(known)}; got "
                                    f"{getattr(self, name)}.")


def sampler_names() -> list[str]:
    """The samplers that the host offers."""
    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    """The schedulers that the host offers."""
    return list(comfy.samplers.KSampler.SCHEDULERS)


def encode_text(clip: Any, text: str) -> Conditioning:
    """Encode a text as the host's text encoding node does.

    Raises:
        LikenessError: there is no text encoder.
    """
    if clip is None:
        raise LikenessError("This checkpoint has no text encoder; connect a CLIP loader.")
    with torch.no_grad():
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def encode_caption(clip: Any, text: str) -> Conditioning:
    """Encode a caption word for word: its brackets are no weights."""
    with torch.no_grad():
        return clip.encode_from_tokens_scheduled(literal_tokens(clip, text))


def encode_and_unload(clip: Any, texts: Iterable[str]) -> dict[str, Conditioning]:
    """Encode several texts and take the text encoder off the compute device.

    Raises:
        LikenessError: there is no text encoder.
    """
    encoded = {text: encode_text(clip, text) for text in texts}
    runtime.unload(clip.patcher)
    return encoded


def latent_size(vae: Any, width: int, height: int) -> tuple[int, int]:
    """Width and height of the latent of a picture; what does not fill a latent pixel is cut off.

    Raises:
        LikenessError: there is no VAE, or the picture is smaller than one latent pixel.
    """
    if vae is None:
        raise LikenessError("This checkpoint has no VAE; connect a VAE loader.")
    ratio = vae.spacial_compression_encode()
    size = int(width // ratio), int(height // ratio)
    if min(size) < 1:
        raise LikenessError(f"A picture of {width} x {height} pixels is too small for this VAE; "
                            f"give at least {ratio} pixels a side.")
    return size


def sample(model: Any, positive: Conditioning, negative: Conditioning, size: tuple[int, int],
           seed: int, sampling: Sampling,
           on_step: Callable[[int], None] = lambda done: None) -> torch.Tensor:
    """Sample one latent (1, C, ..., h, w) at the VAE's own scale, equal to core's KSampler.

    The noise is drawn on the CPU from the seed alone. The global random state stays as it was, so
    that a run which looks at pictures goes on as one that does not.

    Args:
        size: width and height of the latent.
        on_step: called with the number of finished steps; may raise to cancel.

    Raises:
        runtime.Interrupted: the user pressed cancel.
    """
    def callback(step: int, x0: torch.Tensor, x: torch.Tensor, total: int) -> None:
        runtime.throw_if_cancelled()
        on_step(step + 1)

    runtime.throw_if_cancelled()
    width, height = size
    empty = torch.zeros(1, 4, height, width, device=runtime.intermediate_device())
    # Some samplers have a step without no_grad; training calls this outside inference mode.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        latent = comfy.sample.fix_empty_latent_channels(model, empty)
        return comfy.sample.sample(
            model, comfy.sample.prepare_noise(latent, seed), sampling.steps, sampling.cfg,
            sampling.sampler, sampling.scheduler, _guided(positive, sampling.guidance),
            _guided(negative, sampling.guidance), latent, callback=callback, disable_pbar=True,
            seed=seed)


def _guided(conditioning: Conditioning, guidance: float) -> Conditioning:
    """The conditioning with core's option for guidance-distilled models, unless it has its own."""
    return [[tokens, {"guidance": guidance, **options}] for tokens, options in conditioning]


def decode(vae: Any, latent: torch.Tensor) -> np.ndarray:
    """Decode one latent (1, C, ..., h, w) to an (H, W, 3) uint8 picture; of a clip, its first.

    Raises:
        LikenessError: the VAE makes no numbers of a latent of numbers.
    """
    with torch.no_grad():
        pixels = vae.decode(latent)
    if is_finite(latent) and not is_finite(pixels):
        raise LikenessError("The VAE gives NaN in place of a picture, as some do in half "
                            "precision; start ComfyUI with --fp32-vae or connect another VAE of "
                            "the same model.")
    return to_uint8(pixels.reshape(-1, *pixels.shape[-3:])[0])


def encode_image(vae: Any, image: torch.Tensor) -> torch.Tensor:
    """Encode an IMAGE (1, H, W, 3) to a latent (1, C, ..., h, w) at the VAE's own scale."""
    with torch.no_grad():
        return vae.encode(image)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 picture, whole or not at all."""
    write_whole(path, lambda partial: Image.fromarray(pixels).save(partial, "PNG"))
