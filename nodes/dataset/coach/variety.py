"""How alike photos of one person are, and how many different photos a set amounts to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...quality.expression import Shapes, shapes_of
from ...quality.scene import SAME_SCENE
from ...sockets import Photo

FULL = 8.0  # different photos to which a set must amount for a score of 100
LIGHT = ("light_side", "light_key", "light_contrast", "light_warmth", "light_top")
_LIGHT_SCALES = np.array([0.25, 0.1, 0.2, 0.25, 0.2])  # about their spread in portraits
_SHARPNESS = 6.0  # photos that differ in everything are exp(-6) alike
_TOLERANCE = 1e-4
_MOST = 200  # photos that the count of different ones compares

Traits = Mapping[str, np.ndarray]  # name of a trait -> (N, D) float32; a row of NaN is unknown


@dataclass(frozen=True)
class Trait:
    """One respect in which photos differ."""

    weight: float  # share in the similarity; they sum to one
    scale: np.ndarray | float  # how far two photos lie apart that differ clearly, per dimension


TRAITS: Mapping[str, Trait] = {
    "pose": Trait(0.28, np.array([14.0, 12.0])),  # yaw and pitch in degrees
    "expression": Trait(0.16, 0.3),  # of blendshapes
    "light": Trait(0.18, _LIGHT_SCALES),
    "distance": Trait(0.12, 0.5),  # doublings of the face's share of the height
    "scene": Trait(0.18, SAME_SCENE / 1.5),
    "face": Trait(0.08, 0.3),  # of the recogniser's distance: glasses, hair, age
}


def expression_traits(shapes: Shapes) -> tuple[float, ...]:
    """What the similarity compares of an expression."""
    # Lowered brows count half: they also come with a smile.
    return shapes.smile, shapes.teeth, shapes.jaw, shapes.brows / 2, shapes.pucker


def face_height(photo: Photo) -> float:
    """The face's share of the photo's height."""
    return photo.face.size[1] / photo.height


def traits_of(photos: Sequence[Photo]) -> dict[str, np.ndarray]:
    """What the similarity compares, scaled so that a distance of 1 is a clear difference.

    What no photo is measured for is left out; photos must have a face.
    """
    rows = {
        "pose": [(photo.face.pose.yaw, photo.face.pose.pitch) for photo in photos],
        "expression": [expression_traits(shapes_of(photo.face)) for photo in photos],
        "light": [[photo.measures.get(name, np.nan) for name in LIGHT] for photo in photos],
        "distance": [(np.log2(max(face_height(photo), 1e-3)),) for photo in photos],
        "scene": _rows([photo.scene for photo in photos]),
        "face": _rows([photo.embedding for photo in photos]),
    }
    scaled = {name: np.asarray(values, np.float32) / np.float32(TRAITS[name].scale)
              for name, values in rows.items() if len(values)}
    return {name: values for name, values in scaled.items() if not np.isnan(values).all()}


def _rows(vectors: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    size = next((len(vector) for vector in vectors if vector is not None), 1)
    unknown = np.full(size, np.nan, np.float32)
    return [unknown if vector is None else vector for vector in vectors]


def similarity(a: Traits, b: Traits) -> np.ndarray:
    """How alike each photo of `a` is to each of `b`: (Na, Nb) float32, 1 for the same.

    exp(-6 sum_t w_t (1 - exp(-d_t^2 / 2))) over the traits, d_t their scaled distance: each trait
    counts up to its weight, however far apart. A Gaussian of distances is positive definite, and
    so is the outer exponential (Schoenberg 1938). Two photos both unknown in a trait are alike in
    it, a known and an unknown one are not.
    """
    total = sum(TRAITS[name].weight for name in a)
    differ = np.zeros((len(a["pose"]), len(b["pose"])), np.float32)
    for name, rows in a.items():
        differ += np.float32(TRAITS[name].weight / total) * (1 - _alike(rows, b[name]))
    return np.exp(-np.float32(_SHARPNESS) * differ)


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, x_length, unknown_a = _known(a)
    y, y_length, unknown_b = _known(b)
    alike = x @ y.T  # worked on in place: of thousands of photos it is large
    alike -= (x_length / 2)[:, None]
    alike -= y_length / 2
    np.exp(np.minimum(alike, 0, out=alike), out=alike)
    if unknown_a.any() or unknown_b.any():
        alike[unknown_a[:, None] != unknown_b] = 0
        alike[unknown_a[:, None] & unknown_b] = 1
    return alike


def _known(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with zeros where unknown, their squared lengths, and which are unknown."""
    lengths = np.einsum("nd,nd->n", rows, rows)
    unknown = np.isnan(lengths)
    if not unknown.any():
        return rows, lengths, unknown
    known = np.where(unknown[:, None], np.float32(0), rows)
    return known, np.where(unknown, np.float32(0), lengths), unknown


def take(traits: Traits, places: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """The traits of some of the photos."""
    return {name: rows[places] for name, rows in traits.items()}


def joined(a: Traits, b: Traits) -> dict[str, np.ndarray]:
    """The traits of both sets, in order."""
    return {name: np.concatenate([rows, b[name]]) for name, rows in a.items()}


def effective_number(traits: Traits, check: Callable[[], None] = lambda: None) -> float:
    """To how many entirely different photos a set amounts: 0 for none, else at least 1.

    The maximum diversity of the similarity matrix K, 1 / min_p p'Kp over weights p >= 0 that sum
    to one (Leinster and Meckes 2016, arXiv 1512.06314: the same for every order of diversity;
    the Vendi score, arXiv 2210.02410, is its relative at fixed equal weights). Because the
    weights are free, a duplicate changes nothing, and a further photo never takes anything away.
    Of more than 200 photos the 200 most different ones count.

    Args:
        check: called now and then; may raise to cancel.
    """
    if not len(traits["pose"]):
        return 0.0
    return 1.0 / balance(take(traits, representatives(traits, check=check)))[1]


def representatives(traits: Traits, limit: int = _MOST,
                    check: Callable[[], None] = lambda: None) -> np.ndarray:
    """Places of at most so many photos, each the least like those before it (Gonzalez 1985).

    Args:
        check: called before each choice; may raise to cancel.
    """
    count = len(traits["pose"])
    if count <= limit:
        return np.arange(count)
    chosen, nearest = [0], similarity(traits, take(traits, [0]))[:, 0]
    while len(chosen) < limit:
        check()
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, similarity(traits, take(traits, chosen[-1:]))[:, 0])
    return np.array(chosen)


def balance(traits: Traits) -> tuple[np.ndarray, float]:
    """The weights (N,) of the photos under which the set is most diverse, and p'Kp there.

    Moves weight from the most redundant photo to the least redundant one until none gains (a
    quadratic program on the simplex; pairwise steps as in SMO, Platt 1998).
    """
    count = len(traits["pose"])
    alike = similarity(traits, traits).astype(np.float64)
    weights = np.eye(count)[0]
    crowding = alike[0].copy()  # Kp: how crowded it is round each photo
    for _ in range(200 + 40 * count):
        low = int(crowding.argmin())
        high = int(np.where(weights > 0, crowding, -np.inf).argmax())
        if crowding[high] - crowding[low] <= _TOLERANCE * crowding[high]:
            break
        bend = 2 * (1 - alike[low, high])
        step = min((crowding[high] - crowding[low]) / max(bend, 1e-9), weights[high])
        weights[low] += step
        weights[high] -= step
        crowding += step * (alike[low] - alike[high])
    return weights, float(weights @ crowding)


def score_of(number: float) -> float:
    """Put an effective number on a scale of 0 (one photo) to 100 (`FULL` different ones)."""
    return 100.0 * min(max(number - 1.0, 0.0) / (FULL - 1.0), 1.0)
