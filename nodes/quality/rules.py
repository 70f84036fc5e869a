"""The limits of curation as data."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import LikenessError

SEVERAL = ("reject", "unsure", "largest")


@dataclass(frozen=True)
class Rules:
    """Limits of curation. Pairs are (unsure, reject).

    Measured on 268 official portraits of as many people and on photos of three people: the
    exposure limits lie outside of everything that the good ones show, whatever the skin tone.
    """

    min_face: int = 128  # pixels of width; reject below three quarters of it
    min_sharpness: float = 40.0  # reject: Gaussian blur of 2 px at 256 gives 7 to 54, median 17
    soft_sharpness: float = 100.0  # unsure: good portraits have 212 and more, small faces 110
    several_faces: str = "reject"  # what to do when another face is nearly as large
    second_face: float = 0.4  # its width as a share of the largest face's
    highlights: tuple[float, float] = (110.0, 85.0)  # 95th percentile of luma: good ones 138..250
    clipped: tuple[float, float] = (0.12, 0.3)  # share of burnt-out face: good ones to 0.07
    outside: tuple[float, float] = (0.02, 0.08)  # share of landmarks beyond the picture's edge
    turned: float = 55.0  # degrees of yaw; beyond, half of the landmarks are guessed
    duplicate_bits: int = 10  # of 64 in the face's pHash: re-crops 2 to 8, other shots 16 to 34
    duplicate_distance: float = 0.25  # of embeddings: re-crops 0.04 to 0.14, other shots from 0.27
    stranger: tuple[float, float] = (0.48, 0.55)  # to the others' centre: own photos 0.27 to
    # 0.49, the nearest of 268 other people 0.59
    majority: float = 1 / 3  # least share of the faces that must show the same person

    def __post_init__(self) -> None:
        if self.several_faces not in SEVERAL:
            raise LikenessError(f"`several_faces` must be one of {', '.join(SEVERAL)}, got "
                                f"`{self.several_faces}`.")
        if self.min_sharpness > self.soft_sharpness:
            raise LikenessError(f"`min_sharpness` ({self.min_sharpness:g}) must not be above "
                                f"`soft_sharpness` ({self.soft_sharpness:g}).")
