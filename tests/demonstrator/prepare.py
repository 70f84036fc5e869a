"""Crops, labels and the split of the portraits that the demonstrator learns from.

    python tests/demonstrator/prepare.py PORTRAITS WORK

PORTRAITS holds one portrait per person, `portraits.csv` (file, gender, born) and `pairs/` of other
sittings. WORK gets `portraits.npz`: canvases on which every face stands alike, landmarks, labels,
and who is held out. Nothing of it belongs in a repository.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pack_import import pack

SIDE = 128  # pixels of what the demonstrator draws
MARGIN = 16  # pixels round that, from which crops are shifted, turned and scaled
CANVAS = SIDE + 2 * MARGIN
TAKEN = 2021  # year of the portraits
HELD_OUT = 40  # people
_STRAIGHT = 25.0  # degrees of yaw beyond which a portrait is a snapshot
_SAME_PERSON = 0.42  # joint similarity to the other sitting; strangers are below


@dataclass(frozen=True)
class Label:
    """What a caption can say of a portrait."""

    gender: str
    age: int
    expression: str
    glasses: bool
    background: str
    clothes: str


def place(pixels: np.ndarray, box: tuple[float, float, float, float],
          landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put a crop (x0, y0, x1, y1) into the middle of a canvas: pixels and landmarks (478, 2).

    Beyond the picture its edge goes on.
    """
    x0, y0, x1, y1 = box
    scale = SIDE / (x1 - x0), SIDE / (y1 - y0)
    matrix = np.array([[scale[0], 0, MARGIN - x0 * scale[0]],
                       [0, scale[1], MARGIN - y0 * scale[1]]])
    if scale[0] < 0.5:  # area averages come before the warp, which only interpolates
        half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        return place(half, tuple(value / 2 for value in box), landmarks / 2)
    canvas = cv2.warpAffine(pixels, matrix, (CANVAS, CANVAS), flags=cv2.INTER_AREA,
                            borderMode=cv2.BORDER_REPLICATE)
    return canvas, landmarks[:, :2] * scale + matrix[:, 2]


def colour_word(pixels: np.ndarray) -> str:
    """One word for the colour of (N, 3) uint8 pixels, by their median."""
    middle = np.median(pixels.reshape(-1, 3), axis=0).astype(np.uint8)
    hue, saturation, value = (int(part) for part in
                              cv2.cvtColor(middle[None, None], cv2.COLOR_RGB2HSV)[0, 0])
    if value < 55:
        return "black"
    if saturation < 50:
        return "white" if value > 185 else "grey"
    if hue < 10 or hue > 165:
        return "red"
    if hue < 35:
        return "brown"
    return "green" if hue < 85 else "blue" if hue < 130 else "purple"


def _with_glasses() -> frozenset[str]:
    """The files of who wears glasses."""
    told = json.loads(Path(__file__).with_name("glasses.json").read_text("utf-8"))
    return frozenset(f"{number:03}.jpg" for numbers in told.values() for number in numbers)


def _label(row: dict[str, str], canvas: np.ndarray, face: Any) -> Label:
    inner = canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    corners = np.concatenate([inner[:24, :14].reshape(-1, 3), inner[:24, -14:].reshape(-1, 3)])
    low = np.concatenate([inner[-14:, 8:36].reshape(-1, 3), inner[-14:, -36:-8].reshape(-1, 3)])
    return Label(row["gender"], TAKEN - int(row["born"]) if row["born"] else 60,
                 pack("quality.expression").expression_of(face), row["file"] in _with_glasses(),
                 colour_word(corners), colour_word(low))


def _read(file: Path) -> tuple[np.ndarray, Any] | None:
    pixels = pack("media.images").read_photo(file)
    face = pack("faces.detect").find_face(pixels)
    return None if face is None else (pixels, face)


def crop_box(pixels: np.ndarray, face: Any, framing: str = "head") -> tuple[float, ...]:
    """The region that the pack's own Prepare would cut for a square bucket."""
    photo = pack("sockets").Photo(file=Path("x"), name="x", width=pixels.shape[1],
                                  height=pixels.shape[0], face=face)
    return pack("dataset.prepare.crop").choose_crop(photo, framing, [(SIDE, SIDE)]).box


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portraits", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    embed = pack("faces.recognise.embed")
    with (options.portraits / "portraits.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names, canvases, points, labels, embeddings, frontal = [], [], [], [], [], []
    for row in rows:
        seen = _read(options.portraits / row["file"])
        if seen is None:
            continue
        pixels, face = seen
        canvas, marks = place(pixels, crop_box(pixels, face), face.landmarks[:, :2])
        if float(cv2.cvtColor(canvas, cv2.COLOR_RGB2HSV)[..., 1].mean()) < 12:
            print(f"{row['file']}: without colour, left out")
            continue
        names.append(row["file"])
        canvases.append(canvas)
        points.append(marks)
        labels.append(_label(row, canvas, face))
        embeddings.append(embed.embed(pixels, face, "both"))
        frontal.append(abs(face.pose.yaw) <= _STRAIGHT)
    held = _held_out(options.portraits / "pairs", embeddings)
    options.work.mkdir(parents=True, exist_ok=True)
    np.savez(options.work / "portraits.npz", names=np.array(names), canvases=np.stack(canvases),
             points=np.stack(points).astype(np.float32), held_out=held,
             embeddings=np.stack(embeddings), frontal=np.array(frontal),
             labels=np.array([json.dumps(asdict(label)) for label in labels]))
    print(f"{len(names)} portraits, {int(held.sum())} held out, "
          f"{sum(frontal)} look at the camera")


def _held_out(pairs: Path, embeddings: list[np.ndarray]) -> np.ndarray:
    """Who never trains: everybody of `pairs`, and others spread over the list."""
    embed = pack("faces.recognise.embed")
    held = np.zeros(len(embeddings), bool)
    for file in sorted(pairs.glob("*.jpg")):
        pixels, face = _read(file)
        own = embed.embed(pixels, face, "both")
        alike = np.array([embed.similarity(own, row, "both") for row in embeddings])
        best = int(alike.argmax())
        if alike[best] >= _SAME_PERSON:
            held[best] = True
        print(f"{file.name}: nearest {best}, {alike[best]:.3f}, then {np.sort(alike)[-2]:.3f}")
    rest = np.flatnonzero(~held)
    more = HELD_OUT - int(held.sum())
    held[rest[np.linspace(0, len(rest) - 1, more).astype(int)]] = True
    return held


if __name__ == "__main__":
    main()
