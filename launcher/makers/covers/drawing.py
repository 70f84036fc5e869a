"""Covers drawn on a portrait: masks, scarves, glasses and hands, and what must not count as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .canvas import Frame, filled, frame_of, lay, noise, rounded, skin
from .cloth import CLOTHS, cloth

Drawing = Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]

_JAW = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_BEARD = (132, 187, 205, 203, 98, 2, 327, 423, 425, 411, 361, 397, 379, 152, 150, 172)
_EYES = ((33, 133), (263, 362))  # outer and inner corner
_BRIDGE = (6, 197, 197, 195)  # where a mask's edge crosses the nose
_HAIR = ((45, 32, 25), (90, 65, 45), (150, 145, 140), (28, 24, 22), (225, 222, 218))
_RIMS = ((15, 15, 15), (70, 45, 25), (140, 130, 110), (180, 180, 185))
_TINTS = ((25, 22, 22), (45, 30, 20), (20, 30, 35))
_BROWN = ((95, 60, 35), (75, 60, 50), (60, 65, 50))
_SKY = ((90, 120, 170), (190, 120, 60), (150, 155, 160), (70, 140, 120))


def mask(*kinds: str, place: str = "mask") -> Drawing:
    """A mask of one of these kinds of cloth, `place` on the face: see `_outline`."""
    def draw(pixels: np.ndarray, face: Any, rng: np.random.Generator) -> np.ndarray:
        frame = frame_of(face)
        outline, ends = _outline(frame, rng, place)
        if place == "mask":
            pixels = _loops(pixels, frame, rng, ends)
        shape = pixels.shape[:2]
        drawn = cloth(kinds[rng.integers(len(kinds))], frame.axes(shape), rng,
                      skin(pixels, face), frame.width)
        inside = filled(shape, outline, max(0.5, frame.width / 400))
        return lay(pixels, face, drawn, inside, rng)
    return draw


def _outline(frame: Frame, rng: np.random.Generator,
             place: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The outline (N, 2) of a mask worn rightly, below the nose or at the chin, or of a scarf, and
    the four corners that its loops start at."""
    points, nose = frame.points, frame.points[1]
    across, down = frame.across * frame.width / 2, frame.down * frame.width / 2
    jaw = [nose + (points[place] - nose) * rng.uniform(1.0, 1.1) for place in _JAW]
    if place == "below the nose":
        top = [0.6 * points[361] + 0.4 * points[288], 0.5 * points[411] + 0.5 * points[287],
               points[164] + rng.uniform(-0.03, 0.06) * down,
               0.5 * points[187] + 0.5 * points[57], 0.6 * points[132] + 0.4 * points[58]]
    elif place == "chin":
        top = [0.7 * points[288] + 0.3 * points[397], points[262] + 0.05 * down,
               0.35 * points[200] + 0.65 * points[199], points[32] + 0.05 * down,
               0.3 * points[172] + 0.7 * points[58]]
        jaw = jaw[3:-3]
    elif place == "scarf":
        top = [points[454] + 0.05 * across + rng.uniform(-0.1, 0.25) * down,
               points[280] + rng.uniform(-0.1, 0.15) * down,
               points[int(rng.choice((6, 197, 195, 5, 4, 1)))],
               points[50] + rng.uniform(-0.1, 0.15) * down,
               points[234] - 0.05 * across + rng.uniform(-0.1, 0.25) * down]
        jaw = [points[132] - 0.15 * across + 0.2 * down, points[172] - 0.35 * across + 0.5 * down,
               points[152] - 0.4 * across + 1.2 * down, points[152] + 0.4 * across + 1.2 * down,
               points[397] + 0.35 * across + 0.5 * down, points[361] + 0.15 * across + 0.2 * down]
    else:
        high, side = rng.random(), rng.random()
        bridge = points[int(rng.choice(_BRIDGE))]
        top = [side * points[323] + (1 - side) * points[361],
               high * points[346] + (1 - high) * points[280], (points[420] + bridge) / 2, bridge,
               (points[198] + bridge) / 2, high * points[117] + (1 - high) * points[50],
               side * points[93] + (1 - side) * points[132]]
    return rounded([*top, *jaw]), [top[0], top[-1], jaw[-1], jaw[0]]


def _loops(pixels: np.ndarray, frame: Frame, rng: np.random.Generator,
           ends: list[np.ndarray]) -> np.ndarray:
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    shade = int(rng.choice((20, 230, 240)))
    thick = max(1, int(0.012 * frame.width))
    for end, ear, way in zip(ends, (454, 234, 454, 234), (1, -1, 1, -1), strict=True):
        point = frame.points[ear] + 0.03 * way * frame.width * frame.across
        draw.line([tuple(end), tuple(point)], fill=(shade,) * 3, width=thick)
    return np.asarray(picture)


def glasses(kind: str) -> Drawing:
    """Glasses: `black`, `gradient`, `mirrored` or `brown` lenses, or clear ones in thin rims."""
    def draw(pixels: np.ndarray, face: Any, rng: np.random.Generator) -> np.ndarray:
        frame, shape = frame_of(face), pixels.shape[:2]
        lenses = _lenses(frame, rng)
        inside = np.clip(sum(filled(shape, lens, 0.7) for lens in lenses), 0, 1)
        tint, weight = _glass(kind, frame, shape, rng)
        share = (inside * weight)[..., None]
        seen = np.uint8(np.clip(pixels * (1 - share) + np.clip(tint, 0, 255) * share, 0, 255))
        thick = rng.uniform(0.006, 0.013) if kind == "clear" else rng.uniform(0.01, 0.022)
        return _rims(seen, frame, lenses, thick * frame.width, _RIMS[rng.integers(len(_RIMS))])
    return draw


def _glass(kind: str, frame: Frame, shape: tuple[int, int],
           rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | float]:
    """The colour of lenses (H, W, 3) and how much of the eye it hides."""
    across, down = frame.axes(shape)
    low = np.clip((down + 0.42) / 0.3, -1, 1)
    glare = np.exp(-((0.8 * across - 0.6 * down + rng.uniform(-0.3, 0.3)) / 0.04) ** 2)[..., None]
    flat = np.ones((*shape, 3))
    if kind == "clear":
        return 235 * flat, 0.05 + (0.5 * rng.uniform(0, 0.35) * glare[..., 0])
    if kind == "brown":
        return flat * _BROWN[rng.integers(len(_BROWN))], rng.uniform(0.6, 0.75)
    glare = 160 * rng.uniform(0, 0.35) * glare
    if kind == "black":
        return flat * rng.uniform(5, 25) + glare, 1.0
    if kind == "gradient":
        return (flat * _TINTS[rng.integers(len(_TINTS))] + glare,
                np.clip(0.97 - 0.35 * np.clip(low, 0, 1), 0.6, 1))
    sky = flat * _SKY[rng.integers(len(_SKY))] - 55 * low[..., None]
    return sky + 22 * noise(shape, rng, 0.12 * frame.width)[..., None] + glare, 0.97


def _lenses(frame: Frame, rng: np.random.Generator) -> list[np.ndarray]:
    height, power, drop = rng.uniform(0.62, 0.95), rng.choice((2.0, 3.0, 4.0)), rng.uniform(0, 0.12)
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x, y = (np.sign(side) * np.abs(side) ** (2 / power) for side in (np.cos(turn), np.sin(turn)))
    found = []
    for outer, inner in _EYES:
        corner, other = frame.points[outer], frame.points[inner]
        size = 0.9 * float(np.linalg.norm(corner - other))
        centre = (corner + other) / 2 + drop * size * frame.down
        found.append(centre + size * (x[:, None] * frame.across + height * y[:, None] * frame.down))
    return found


def _rims(pixels: np.ndarray, frame: Frame, lenses: list[np.ndarray], thick: float,
          colour: tuple[int, int, int]) -> np.ndarray:
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    right, left = ((lens - frame.points[1]) @ frame.across for lens in lenses)
    lines = [[*lens, lens[0], lens[1]] for lens in lenses]
    lines += [[lenses[0][right.argmax()], lenses[1][left.argmin()]],
              [lenses[0][right.argmin()], frame.points[127]],
              [lenses[1][left.argmax()], frame.points[356]]]
    for line in lines:
        draw.line([tuple(2 * point) for point in line], fill=colour, width=max(2, int(2 * thick)),
                  joint="curve")
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def hand(place: str) -> Drawing:
    """A hand over the `mouth` or one `eye`, or `beside` the face."""
    def draw(pixels: np.ndarray, face: Any, rng: np.random.Generator) -> np.ndarray:
        frame, shape = frame_of(face), pixels.shape[:2]
        way, size = float(rng.choice((-1, 1))), frame.width * rng.uniform(0.85, 1.0)
        bones = _bones(frame, rng, place, way, size)
        colour = np.clip(skin(pixels, face) * rng.uniform(0.85, 1.08) + rng.normal(0, 4, 3), 5, 250)
        rows, columns = np.mgrid[0:shape[0], 0:shape[1]] + 0.5
        spots = np.stack([columns, rows], -1)
        drawn, inside = np.zeros((*shape, 3)), np.zeros(shape)
        for start, end, thick in bones:
            along = np.clip((spots - start) @ (end - start) / max((end - start) @ (end - start), 1),
                            0, 1)
            away = np.linalg.norm(spots - start - along[..., None] * (end - start), axis=-1) / thick
            round_ = 0.62 + 0.38 * np.sqrt(np.clip(1 - (0.93 * away) ** 2, 0.02, 1))
            here = np.clip((1 - away) * thick / 1.2, 0, 1)
            drawn = drawn * (1 - here[..., None]) + (round_ * here)[..., None] * colour
            inside = np.maximum(inside, here)
        drawn = drawn * (1 + 0.03 * noise(shape, rng, max(2.0, 0.01 * frame.width)))[..., None]
        return lay(pixels, face, drawn, inside, rng, lit=False)
    return draw


def _bones(frame: Frame, rng: np.random.Generator, place: str, way: float,
           size: float) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Arm, palm and fingers as start, end and half width in pixels, from behind to the front."""
    points, width = frame.points, frame.width
    if place == "mouth":
        centre = (points[13] + points[14]) / 2 + rng.uniform(0, 0.06) * width * frame.down
        turn = rng.uniform(0.9, 1.5)
    elif place == "eye":
        centre = points[468 if way < 0 else 473] + 0.05 * width * frame.down
        turn = rng.uniform(-0.3, 0.3)
    else:
        ear = points[234] if way < 0 else points[454]
        centre = ear + 0.3 * way * width * frame.across + 0.12 * width * frame.down
        turn = rng.uniform(-0.25, 0.25)
    up = -np.cos(turn) * frame.down - way * np.sin(turn) * frame.across
    side = way * np.cos(turn) * frame.across - np.sin(turn) * frame.down
    wrist = centre - 0.42 * size * up
    thumb = centre - 0.2 * size * side - 0.28 * size * up
    bones = [(wrist, wrist - 1.2 * size * up, 0.16 * size), (wrist, thumb, 0.12 * size),
             (thumb, thumb + 0.34 * size * (0.8 * up - 0.6 * side), 0.06 * size)]
    spread = rng.uniform(0.02, 0.1)
    for finger, length in enumerate((0.46, 0.52, 0.48, 0.38)):
        off = finger - 1.5
        root = centre + 0.105 * off * size * side - 0.05 * size * up
        bones.append((root, wrist + 0.07 * off * size * side, 0.08 * size))
        tip = up + off * spread * side
        bones.append((root, root + length * size * tip / np.linalg.norm(tip), 0.052 * size))
    return bones


def beard(pixels: np.ndarray, face: Any, rng: np.random.Generator) -> np.ndarray:
    """A beard, which covers the chin but leaves the lips."""
    frame, shape = frame_of(face), pixels.shape[:2]
    inside = filled(shape, rounded(frame.points[list(_BEARD)]), 0.02 * frame.width)
    inside = inside * (1 - filled(shape, frame.points[list(_LIPS)], 1.0))
    inside = inside * np.clip(0.75 + 0.35 * noise(shape, rng, 0.03 * frame.width), 0, 1)
    strands = np.clip(1 + 0.3 * noise(shape, rng, 2.0), 0.3, 2)[..., None]
    return lay(pixels, face, strands * _HAIR[rng.integers(len(_HAIR))], inside, rng)


def tilted(drawing: Drawing, degrees: tuple[float, float] = (10.0, 30.0)) -> Drawing:
    """The same on a photo turned by some degrees to either side."""
    def draw(pixels: np.ndarray, face: Any, rng: np.random.Generator) -> np.ndarray:
        room = pixels.shape[0] // 3
        wide = np.pad(drawing(pixels, face, rng), ((room, room), (room, room), (0, 0)), "reflect")
        turn = rng.uniform(*degrees) * rng.choice((-1, 1))
        turned = np.asarray(Image.fromarray(wide).rotate(turn, Image.Resampling.BICUBIC))
        return turned[room:-room, room:-room].copy()
    return draw


def near(drawing: Drawing) -> Drawing:
    """The same drawn on the face's surroundings alone, which is quicker."""
    def draw(pixels: np.ndarray, face: Any, rng: np.random.Generator) -> np.ndarray:
        x0, y0, x1, y1 = face.box
        room, (height, width) = max(x1 - x0, y1 - y0), pixels.shape[:2]
        left, top = max(int(x0 - 0.6 * room), 0), max(int(y0 - 0.2 * room), 0)
        right, bottom = min(int(x1 + 0.6 * room), width), min(int(y1 + 0.8 * room), height)
        moved = dataclasses.replace(
            face, landmarks=face.landmarks - np.float32((left, top, 0)),
            box=(x0 - left, y0 - top, x1 - left, y1 - top))
        seen = pixels.copy()
        seen[top:bottom, left:right] = drawing(seen[top:bottom, left:right].copy(), moved, rng)
        return seen
    return draw


def _masked(drawing: Drawing) -> Drawing:
    """The same over a mask of any cloth."""
    worn = mask(*CLOTHS)
    return lambda pixels, face, rng: drawing(worn(pixels, face, rng), face, rng)


MOUTH: dict[str, Drawing] = {
    **{name: near(mask(name)) for name in CLOTHS},
    "scarf": near(mask(*CLOTHS[4:], place="scarf")),
    "below the nose": near(mask(*CLOTHS, place="below the nose")),
    "tilted mask": tilted(near(mask(*CLOTHS))), "mask and glasses": near(_masked(glasses("clear"))),
    "hand over the mouth": near(hand("mouth"))}
EYES: dict[str, Drawing] = {
    **{f"{kind} glasses": near(glasses(kind)) for kind in ("black", "gradient", "mirrored",
                                                           "brown")},
    "tilted glasses": tilted(near(glasses("black")))}
BOTH: dict[str, Drawing] = {"mask and dark glasses": near(_masked(glasses("black")))}
FREE: dict[str, Drawing] = {
    "chin mask": near(mask(*CLOTHS, place="chin")), "clear glasses": near(glasses("clear")),
    "beard": near(beard), "hand beside": near(hand("beside")),
    "tilted clear glasses": tilted(near(glasses("clear")))}
