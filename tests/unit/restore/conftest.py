"""Small networks with the calling convention of the real restorers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from likeness.nodes.faces.align import FFHQ_512, align, five_points
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo, resize, to_image


class GFPGANLike(torch.nn.Module):
    """Takes and gives [-1, 1] the way GFPGAN does, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))
        self.seen: dict[str, float | bool] = {}

    def face(self, chips: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, chips, return_latents=False, return_rgb=True, randomize_noise=True):
        self.seen = {"low": float(chips.min()), "high": float(chips.max()),
                     "return_rgb": return_rgb, "randomize_noise": randomize_noise}
        image = self.face(chips) * self.gain
        if randomize_noise:
            image = image + torch.randn_like(image) * 0.1
        return image, [chips] if return_rgb else []


class Same(GFPGANLike):
    """Gives the face back."""

    def face(self, chips):
        return chips


class Sharpen(GFPGANLike):
    """A mild unsharp mask: harmless."""

    def face(self, chips):
        soft = F.avg_pool2d(chips, 5, 1, 2, count_include_pad=False)
        return (chips + 0.6 * (chips - soft)).clamp(-1, 1)


class Blur(GFPGANLike):
    """Takes detail away: the same person, less alike."""

    def face(self, chips):
        return F.avg_pool2d(chips, 25, 1, 12, count_include_pad=False)


class Else(GFPGANLike):
    """Gives one fixed face, whoever comes in."""

    def __init__(self, chip: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("chip", chip)

    def face(self, chips):
        return self.chip


class Noise(GFPGANLike):
    """Gives a fixed noise."""

    def face(self, chips):
        return torch.rand(chips.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def aligned(file: Path) -> torch.Tensor:
    """The aligned face of a photo: (1, 3, 512, 512) in [-1, 1]."""
    pixels = read_photo(file)
    chip = align(pixels, five_points(find_face(pixels)), FFHQ_512, 512)
    return to_image(chip).movedim(-1, 1) * 2 - 1


@pytest.fixture
def same() -> GFPGANLike:
    return Same()


@pytest.fixture
def sharpen() -> GFPGANLike:
    return Sharpen()


@pytest.fixture
def blur() -> GFPGANLike:
    return Blur()


@pytest.fixture
def noise() -> GFPGANLike:
    return Noise()


@pytest.fixture
def somebody_else(assets) -> GFPGANLike:
    return Else(aligned(assets / "biden2.jpg"))


@pytest.fixture(scope="session")
def portrait(assets) -> torch.Tensor:
    """One picture of the subject: (1, 600, H, 3)."""
    pixels = read_photo(assets / "obama3.jpg")
    height, width = pixels.shape[:2]
    return to_image(resize(pixels, width * 800 // height, 800))


@pytest.fixture(scope="session")
def small_restoreformer() -> dict[str, torch.Tensor]:
    """Random weights of the smallest RestoreFormer that spandrel rebuilds from a file: 2 MB."""
    from spandrel.architectures.RestoreFormer import RestoreFormer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RestoreFormer(n_embed=16, embed_dim=32, ch=32, ch_mult=(1,) * 6,
                                num_res_blocks=1, attn_resolutions=(16,), z_channels=32,
                                double_z=False)
    return network.state_dict()
