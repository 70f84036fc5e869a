"""The cloth of masks and scarves: colours, patterns, pleats and folds, (H, W, 3) in 0..255."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .canvas import noise

_CARE = {"blue": ((150, 195, 225), (120, 175, 215), (165, 205, 235)),
         "green": ((150, 205, 190), (120, 190, 170), (90, 160, 150)),
         "white": ((236, 238, 240), (225, 225, 225), (245, 245, 242))}
_HAIR = ((52, 38, 30), (85, 62, 45), (120, 115, 110), (30, 26, 25), (140, 105, 70))
_WOODS = ((75, 83, 60), (110, 100, 70), (45, 45, 35), (150, 140, 105))
_CITY = ((60, 70, 90), (100, 110, 130), (160, 165, 175), (30, 35, 50))
_LETTERS = "ABCDEFGHIKLMNOPRSTUVWXYZ"
_PAGE = 300, 400  # rows and columns of the sheet that letters are set on

Grid = tuple[np.ndarray, np.ndarray]  # across and down, of `canvas.Frame.axes`
Pattern = Callable[[Grid, np.random.Generator, np.ndarray, float], np.ndarray]


def cloth(kind: str, grid: Grid, rng: np.random.Generator, skin: np.ndarray,
          width: float) -> np.ndarray:
    """One kind of cloth over a face `width` pixels wide, whose skin has that colour (3,)."""
    drawn = np.asarray(_KINDS[kind](grid, rng, skin, width), np.float64)
    return drawn if kind in ("blue", "green", "white", "dome") else drawn * _folds(grid, rng)


def _plain(colour: np.ndarray, grid: Grid) -> np.ndarray:
    return np.ones((*grid[0].shape, 3)) * np.asarray(colour, np.float64)


def _any_colour(rng: np.random.Generator, saturation: tuple[float, float] = (0.0, 1.0),
                value: tuple[float, float] = (0.1, 1.0)) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation),
                                              rng.uniform(*value)))


def _folds(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    across, down = grid
    shade = 1 + rng.uniform(0.01, 0.05) * rng.standard_normal(across.shape)
    for _ in range(rng.integers(2, 6)):
        off = (down - rng.uniform(0, 0.9) - rng.uniform(-0.6, 0.6) * across
               + rng.uniform(-0.15, 0.15) * across ** 2)
        shade *= 1 + rng.uniform(-0.18, 0.14) * (np.exp(-(off / rng.uniform(0.03, 0.09)) ** 2)
                                                 * np.clip(1.3 * np.abs(across), 0.15, 1))
    if rng.random() < 0.5:
        shade *= 1 - 0.15 * np.exp(-(across / 0.015) ** 2)  # the seam
    return (shade * (1.03 - 0.25 * np.clip(across ** 2, 0, 1.5)))[..., None]


def _pleated(name: str) -> Pattern:
    def draw(grid: Grid, rng: np.random.Generator, skin: np.ndarray, width: float) -> np.ndarray:
        across, down = grid
        colours = _CARE[name]
        shade, pleats = np.ones(across.shape), int(rng.integers(3, 5))
        for pleat in range(pleats):
            off = (down - 0.05 - 0.7 * (pleat + rng.uniform(-0.1, 0.1)) / pleats
                   - 0.06 * rng.uniform(-1, 2) * across ** 2)
            shade *= (1 - rng.uniform(0.08, 0.2) * np.exp(-(off / 0.025) ** 2)
                      + rng.uniform(0.02, 0.1) * np.exp(-((off + 0.04) / 0.03) ** 2))
        return _plain(np.array(colours[rng.integers(len(colours))]), grid) * shade[..., None]
    return draw


def _dome(grid: Grid, rng: np.random.Generator, skin: np.ndarray, width: float) -> np.ndarray:
    across, down = grid
    shade = 1.05 - 0.38 * ((1.1 * across) ** 2 + (down - 0.35) ** 2)
    if rng.random() < 0.5:
        shade = shade * (1 - 0.18 * np.exp(-(across / 0.02) ** 2))
    if rng.random() < 0.3:
        valve = np.hypot(across - rng.uniform(-0.4, 0.4), 0.9 * (down - rng.uniform(0.2, 0.5)))
        shade = np.where(valve < 0.18, 0.75 + 0.2 * np.cos(60 * valve), shade)
    colours = ((240, 240, 236), (225, 228, 230), (205, 208, 210), (190, 205, 215))
    return _plain(np.array(colours[rng.integers(4)]), grid) * shade[..., None]


def _lines(grid: Grid, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    turn, often = rng.uniform(0, np.pi), rng.uniform(8, 30)
    across = np.arcsin(np.clip(0.85 * grid[0], -1, 1))
    return (often * (across * np.cos(turn) + grid[1] * np.sin(turn)),
            often * (grid[1] * np.cos(turn) - across * np.sin(turn)))


def _stripes(grid: Grid, rng: np.random.Generator, skin: np.ndarray, width: float) -> np.ndarray:
    along, _ = _lines(grid, rng)
    return np.where((np.sin(along) > rng.uniform(-0.5, 0.5))[..., None], _any_colour(rng),
                    _any_colour(rng))


def _checks(grid: Grid, rng: np.random.Generator, skin: np.ndarray, width: float) -> np.ndarray:
    first, second = _any_colour(rng), _any_colour(rng)
    along, beside = _lines(grid, rng)
    return np.array([first, (first + second) / 2, second])[
        (np.sin(along) > 0).astype(int) + (np.sin(beside) > 0)]


def _flowers(grid: Grid, rng: np.random.Generator, skin: np.ndarray, width: float) -> np.ndarray:
    drawn, colours = _plain(_any_colour(rng), grid), [_any_colour(rng) for _ in range(3)]
    for _ in range(rng.integers(15, 45)):
        x, y = grid[0] - rng.uniform(-1, 1), grid[1] - rng.uniform(-0.7, 1.1)
        size, turn = rng.uniform(0.05, 0.2), rng.uniform(0, 6)
        away = np.hypot(x, y)
        petals = size * (0.7 + 0.3 * np.cos(5 * np.arctan2(y, x) + turn))
        drawn = np.where((away < petals)[..., None], colours[rng.integers(3)], drawn)
        drawn = np.where((away < 0.25 * size)[..., None], colours[rng.integers(3)], drawn)
    return drawn


def _camouflage(grid: Grid, rng: np.random.Generator, skin: np.ndarray,
                width: float) -> np.ndarray:
    first, second = (noise(grid[0].shape, rng, size * width) for size in (0.12, 0.1))
    colours = np.array(_WOODS if rng.random() < 0.6 else _CITY)
    return colours[(first > 0.2).astype(int) + 2 * (second > 0.5)]


def _words(grid: Grid, rng: np.random.Generator, skin: np.ndarray, width: float) -> np.ndarray:
    sheet = Image.new("L", _PAGE[::-1])
    draw = ImageDraw.Draw(sheet)
    for _ in range(rng.integers(1, 5)):
        word = "".join(rng.choice(list(_LETTERS), rng.integers(3, 8)))
        draw.text((rng.uniform(0, 180), rng.uniform(0, 230)), word, fill=255,
                  font=ImageFont.load_default(size=int(rng.uniform(40, 90))))
    rows = np.clip((grid[1] + 0.6) / 1.7 * _PAGE[0], 0, _PAGE[0] - 1).astype(int)
    columns = np.clip((grid[0] + 1) / 2 * _PAGE[1], 0, _PAGE[1] - 1).astype(int)
    ink = (np.asarray(sheet, np.float64) / 255)[rows, columns][..., None]
    ground = _any_colour(rng)
    return ground * (1 - ink) + (255 - ground) * ink


def _animal(grid: Grid, rng: np.random.Generator, skin: np.ndarray, width: float) -> np.ndarray:
    if rng.random() < 0.5:
        blots = noise(grid[0].shape, rng, 0.05 * width)[..., None]
        spotted = np.where(np.abs(blots - 0.8) < 0.35, (45, 30, 20), (200, 155, 95))
        return np.where(blots > 1.3, (150, 100, 50), spotted)
    along, _ = _lines(grid, rng)
    bent = np.sin(1.3 * along + 3 * noise(grid[0].shape, rng, 0.12 * width))[..., None]
    return np.where(bent > 0, (235, 230, 225), (25, 22, 22))


_KINDS: dict[str, Pattern] = {
    **{name: _pleated(name) for name in _CARE}, "dome": _dome,
    "black": lambda grid, rng, skin, width: _plain(rng.uniform(14, 40) * np.ones(3), grid),
    "plain": lambda grid, rng, skin, width: _plain(
        _any_colour(rng, (0.2, 0.9), (0.2, 0.95)), grid),
    "skin": lambda grid, rng, skin, width: _plain(
        np.clip(skin * rng.uniform(0.85, 1.12) + rng.normal(0, 6, 3), 10, 250), grid),
    "hair": lambda grid, rng, skin, width: _plain(_HAIR[rng.integers(len(_HAIR))], grid),
    "stripes": _stripes, "checks": _checks, "flowers": _flowers, "camouflage": _camouflage,
    "words": _words, "animal": _animal,
}
CLOTHS = tuple(_KINDS)
