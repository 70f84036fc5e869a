"""The limits of curation as data, each with what it was taken from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from ..errors import LikenessError

SEVERAL = ("reject", "unsure", "largest", "subject")
EYES_PER_WIDTH = 0.447  # distance of the irises over the face's width: the portraits' median
# An enlarged face's width over its factor is 0.86 to 1.67 of the width that it came from, median
# 1.25 (faces of 9 people, 70 to 150 pixels wide, grown 3 to 7 times). As shares of `min_face`: from
# the first on it surely came from enough, below the second it came from three quarters or fewer.
HELD = 1.67, 0.88
HELD_PER_TRUE = 1.25


@dataclass(frozen=True)
class Rules:
    """Limits of curation. Pairs are (unsure, reject). `SOURCES` says where each comes from."""

    min_face: int = 128  # pixels of width; below three quarters of it rejected
    training_size: int = 0  # pixels that the whole photo is brought to; 0: cut to the head instead
    min_sharpness: float = 40.0
    soft_sharpness: float = 100.0
    several_faces: str = "reject"  # what to do when another face is nearly as large
    second_face: float = 0.4  # its width as a share of the chosen face's
    highlights: tuple[float, float] = (110.0, 85.0)  # 95th percentile of the face's luma
    clipped: tuple[float, float] = (0.12, 0.3)  # share of burnt-out face
    outside: tuple[float, float] = (0.02, 0.08)  # share of landmarks beyond the picture's edge
    turned: float = 55.0  # degrees of yaw
    nodded: float = 35.0  # degrees of pitch
    tilted: float = 50.0  # degrees of roll
    eyes_closed: float = 0.48  # blink of the more open eye, 0..1
    occlusion: tuple[float, float] = (0.4, 0.65)  # 0..1
    strokes: tuple[float, float] = (0.06, 0.12)  # share of the skin
    even: float = 0.3  # share of the face without shading; below it nothing counts as drawn
    lines: tuple[float, float] = (20.0, 100.0)  # sharpest contrast over the middle one
    compression: tuple[float, float] = (3.6, 5.2)  # grey levels of the block grid
    enlargement: tuple[float, float] = (2.4, 3.4)  # times
    duplicate_bits: int = 10  # of 64 in the face's pHash
    duplicate_distance: float = 0.25  # of embeddings, a mirror image's too
    duplicate_turn: float = 15.0  # degrees that yaw and pitch of one shot may differ by
    stranger: tuple[float, float] = (0.52, 0.58)  # distance to the centre of the others
    shut_eyes: float = 0.05  # that a face with shut eyes may lie further off than `stranger`
    majority: float = 1 / 3  # least share of the photos that must show the same person

    def __post_init__(self) -> None:
        if self.several_faces not in SEVERAL:
            raise LikenessError(f"`several_faces` must be one of {', '.join(SEVERAL)}, got "
                                f"`{self.several_faces}`.")
        if self.min_sharpness > self.soft_sharpness:
            raise LikenessError(f"`min_sharpness` ({self.min_sharpness:g}) must not be above "
                                f"`soft_sharpness` ({self.soft_sharpness:g}).")
        if self.training_size < 0:
            raise LikenessError("`training_size` must be 0 or the side of the training pictures in "
                                f"pixels, got {self.training_size}.")


# Portraits: 179 official portraits of as many people, 512 x 512, largest face; the figures that
# launcher/makers/limits.py prints for them. Ladders: those and photos of three people made worse
# step by step.
SOURCES: Mapping[str, str] = MappingProxyType({
    "min_face": "A choice: the head fills about half of a training picture of 512 pixels. As the "
                "distance of the eyes, which serves as well, it is 57 pixels; passports ask for 60 "
                "at least (ISO/IEC 19794-5).",
    "training_size": "What the user trains at.",
    "min_sharpness": "Photos blurred by a Gaussian of 2 pixels at 256 have 7 to 54, median 17.",
    "soft_sharpness": "99 of 100 portraits have 215 and more, good small faces 110.",
    "several_faces": "A choice of the user.",
    "second_face": "A choice: faces of passers-by in good photos are narrower, out of focus or cut "
                   "off, which do not count.",
    "highlights": "Portraits have 154 to 250, whatever the skin tone.",
    "clipped": "Portraits have up to 0.075, 99 of 100 up to 0.043.",
    "outside": "Photos that show the whole face have 0, halves of faces 0.1 and more.",
    "turned": "Beyond it half of the landmarks are guessed; portraits turn by up to 37 degrees.",
    "nodded": "Portraits nod by up to 18 degrees; beyond 35 forehead or chin is out of sight.",
    "tilted": "99 of 100 portraits tilt by up to 19 degrees; beyond 50 the photo is likely on its "
              "side.",
    "eyes_closed": "535 portraits have up to 0.451, narrow laughing eyes "
                   "included; lids drawn over the open eyes of four photos 0.41 to 0.64.",
    "occlusion": "535 portraits have up to 0.61, 99 of 100 up to 0.1, two of them more than 0.4; "
                 "of 1,134 masks and scarves drawn on portraits 96 % have more than 0.4, of 107 "
                 "dark glasses 96 %; of 39 sharp photos of worn masks 92 %.",
    "strokes": "728 faces have up to 0.076, 99 of 100 up to 0.042, the most with glasses low on "
               "the nose; of 133 on which a line of 1.5 to 4 % of the face was scribbled 90 % have "
               "more than 0.06.",
    "even": "728 faces have up to 0.10, stored at JPEG quality 8 up to 0.31; line drawings 0.62 to "
            "0.70, flat cartoons 0.33 to 0.42. Burnt-out photos are as even.",
    "lines": "728 faces have up to 16, burnt-out ones up to 59; flat cartoons 25 to 58, line "
             "drawings 427 to 478. Paintings that are shaded have what photos have.",
    "compression": "Portraits have up to 1.6; the same and other photos stored again as JPEG of "
                   "quality 30 have 2.8 to 3.4, of 20 3.8 to 5.1, of 10 5.3 to 7.6.",
    "enlargement": "Portraits have up to 2.1, 99 of 100 up to 1.74; photos shrunk and grown "
                   "again by 2 have 1.6 to 2.6, by 3 2.2 to 3.3, by 4 2.9 to 4.2. It speaks only "
                   "where too few pixels of the face remain without it; see `HELD`.",
    "duplicate_bits": "Re-crops, other sizes, light and codings of one shot differ in 0 to 8 bits, "
                      "other shots of a person in 16 to 34.",
    "duplicate_distance": "45 portraits: 95 of 100 re-crops and other sizes lie up to 0.08 away, "
                          "other light up to 0.17, grey copies up to 0.20, mirror images up to "
                          "0.17; other shots of 13 people from 0.28.",
    "duplicate_turn": "Copies of one shot differ by up to 4 degrees.",
    "stranger": "208 photos of 13 people, plain, blurred, dark, noisy, small, warm and of JPEG "
                "quality 8, lie 0.24 to 0.58 from the centre of the person's others, half of them "
                "within 0.38; of 19,471 comparisons with other people's such photos 0.11 % lie "
                "within 0.58, 0.01 % within 0.52. Raise it where looks changed over many years.",
    "shut_eyes": "Lids drawn over the open eyes of 28 photos of 12 people move them 0.06 away from "
                 "the others' centre, at most 0.10; other people's come hardly nearer, the nearest "
                 "of 1,169 to 0.55.",
    "majority": "A choice: fewer than a third are no majority.",
})


def explained(rules: Rules) -> dict[str, dict[str, Any]]:
    """The limits for a report: by name the value and what it was taken from."""
    return {name: {"limit": value, "source": SOURCES[name]}
            for name, value in asdict(rules).items()}
