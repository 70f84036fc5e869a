"""Training pictures: random crops of portraits and morphs, mirrored, turned and lit a little."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from captions import name_of
from prepare import CANVAS, MARGIN, SIDE

_SCALE, _TURN, _SHIFT = 0.08, 4.0, 6.0  # share, degrees, pixels
_GAIN, _TINT, _GAMMA = 0.12, 0.04, 0.15  # of light
_REAL = 0.25  # share of true portraits among the drawn
# The landmarks as a mirror shows them are those of the mirrored picture, found once per set.


@dataclass(frozen=True, eq=False)
class Pictures:
    """Canvases (N, CANVAS, CANVAS, 3) uint8 with landmarks (N, 478, 2) and their labels."""

    canvases: np.ndarray
    points: np.ndarray
    labels: tuple[dict, ...]


def read(work: Path) -> tuple[Pictures, Pictures, Pictures]:
    """Portraits that train, morphs of them, and the people held out."""
    stored = np.load(work / "portraits.npz")
    labels = [json.loads(text) for text in stored["labels"]]

    def chosen(rows: np.ndarray) -> Pictures:
        return Pictures(stored["canvases"][rows], stored["points"][rows],
                        tuple(labels[row] for row in rows))

    free, held = (np.flatnonzero(stored["frontal"] & rows) for rows in
                  (~stored["held_out"], stored["held_out"]))
    blended = np.load(work / "morphs.npz")
    # A name is one person's: a morph has none.
    between = tuple({**labels[one], "age": (labels[one]["age"] + labels[other]["age"]) // 2}
                    for one, other in blended["parents"])
    morphs = Pictures(np.load(work / "morphs.npy", mmap_mode="r"), blended["points"], between)
    named = tuple({**label, "name": name_of(str(stored["names"][row]))}
                  for row, label in zip(free, chosen(free).labels, strict=True))
    return dataclasses.replace(chosen(free), labels=named), morphs, chosen(held)


def plain(pictures: Pictures, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle of one canvas as the pack's own Prepare cuts it, and its landmarks."""
    inner = slice(MARGIN, CANVAS - MARGIN)
    return pictures.canvases[row][inner, inner], pictures.points[row] - MARGIN


def draw(sets: tuple[Pictures, Pictures], random: np.random.Generator,
         steady: bool = False) -> tuple[np.ndarray, np.ndarray, dict, bool]:
    """One crop (SIDE, SIDE, 3) uint8, its landmarks (478, 2), its label, whether it is mirrored.

    Args:
        steady: shift, turn and scale less, for what the demonstrator shall draw.
    """
    pictures = sets[0] if random.random() < _REAL else sets[1]
    row = int(random.integers(len(pictures.canvases)))
    calm = 0.5 if steady else 1.0
    turn = np.radians(random.normal(0, _TURN / 2) * calm)
    scale = np.exp(random.uniform(-_SCALE, _SCALE) * calm)
    shift = random.uniform(-_SHIFT, _SHIFT, 2) * calm
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mirrored = bool(random.random() < 0.5)
    if mirrored:
        linear = np.diag([-1.0, 1.0]) @ linear
    matrix = np.column_stack([linear, SIDE / 2 + shift - linear @ np.full(2, CANVAS / 2)])
    # OpenCV counts from the centre of the first pixel.
    drawn = matrix.copy()
    drawn[:, 2] += 0.5 * matrix[:, :2].sum(1) - 0.5
    crop = cv2.warpAffine(np.ascontiguousarray(pictures.canvases[row]), drawn, (SIDE, SIDE),
                          flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return (_lit(crop, random), pictures.points[row] @ matrix[:, :2].T + matrix[:, 2],
            pictures.labels[row], mirrored)


def _lit(crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
    gain = np.exp(random.normal(0, _GAIN / 2) + random.normal(0, _TINT / 2, 3))
    gamma = np.exp(random.normal(0, _GAMMA / 2))
    levels = 255 * np.clip((np.arange(256) / 255)[:, None] ** gamma * gain, 0, 1)
    return np.take_along_axis(levels.astype(np.uint8), crop.reshape(-1, 3), 0).reshape(crop.shape)


def tensor(crops: list[np.ndarray]) -> torch.Tensor:
    """Crops as (B, 3, SIDE, SIDE) in [0, 1], channels last."""
    stacked = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return stacked.contiguous(memory_format=torch.channels_last)
