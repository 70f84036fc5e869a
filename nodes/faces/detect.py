"""Finds faces with their landmarks, canonical mesh, head pose and expression."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..media.images import resize
from ..sockets import Face
from . import tasks
from .boxes import crop_round, overlap
from .memory import Remembered
from .mesh import canonical_mesh
from .orientation import ALIKE, doubtful, misfit, plausible, strangeness
from .turned import pose_of, quarter_turns, scale_face, shift_face, turn_face

_MIN_FACE = 16  # pixels; landmarks below this are noise
_SECOND_SIDE = 2000  # pixels; detectors see 192 at most, and a border and copies cost memory
_BORDER = 0.6  # of the longer side, added all round so that a close-up face has surroundings
_LONGEST_FACE = 1.5  # of the shorter side: what a border is for in a strip
_TILE = 0.6  # of each side; four overlapping tiles find faces too small for the whole picture
_SAME_PLACE = 0.3  # two finds that share this much of their boxes are of one face

_REMEMBERED, _REMEMBERED_BYTES = 1024, 32 * 2 ** 20  # pictures, and what their faces may take
_FACE_BYTES = 16 * 1024  # landmarks and mesh 11 kB, expression 4 kB

Look = Callable[[np.ndarray], list[Face]]


def _size_of(faces: tuple[Face, ...]) -> int:
    return _FACE_BYTES * (1 + len(faces))


_known: Remembered[tuple[Face, ...]] = Remembered(_REMEMBERED, _REMEMBERED_BYTES, _size_of)


def find_faces(pixels: np.ndarray, limit: int = 8) -> list[Face]:
    """Find the faces of an (H, W, 3) uint8 RGB picture, largest first; remembers its last pictures.

    Several nodes of a workflow look at the same pictures. What is remembered is held by a digest
    of all pixels, so that an edited picture is looked at again.
    """
    return list(_known.get(pixels, _search)[:limit])


def forget_faces() -> None:
    """Drop what `find_faces` remembers."""
    _known.clear()


def _search(pixels: np.ndarray) -> tuple[Face, ...]:
    """Look for faces, largest first.

    The full-range detector looks first (it finds faces down to about 6 % of the picture's side
    and makes few mistakes). Where it finds none, or one whose landmarks may lie the wrong way
    round, a second look at a copy of bounded size follows.
    """
    faces = _full_range(pixels)
    doubted = [doubtful(face, pixels) for face in faces]
    if not faces or any(doubted):
        faces = _second_look(faces, doubted, pixels)
    for face in faces:  # they are shared between all that ask for this picture
        face.landmarks.flags.writeable = face.mesh.flags.writeable = False
    return tuple(_largest_first(faces))


def _second_look(faces: Sequence[Face], doubted: Sequence[bool], pixels: np.ndarray) -> list[Face]:
    """Look harder for faces, and set those right whose landmarks lie the wrong way round.

    Where there are none yet, the short-range detector looks, then the full-range one on the picture
    turned by quarters, then both on the picture with a border (close-ups), then the full-range one
    on four tiles (small faces), then all of these on the turned picture. What they find must be
    found again in a crop round it: the short-range detector also fires on scenery. All of it is
    doubted: an upside-down face that the first look missed is often found as an upright one.
    """
    small = _reduced(pixels)
    if min(small.shape[:2]) < _MIN_FACE:
        return list(faces)
    across, down = (small.shape[axis] / pixels.shape[axis] for axis in (1, 0))
    found = [scale_face(face, across, down) for face in faces]
    if not found:
        found = next(filter(None, (look(small) for look in _SECOND_LOOKS)), [])
        doubted = [True] * len(found)
    return [scale_face(face, 1 / across, 1 / down) for face in _set_right(found, doubted, small)]


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """The picture itself, or a copy no longer than `_SECOND_SIDE`."""
    factor = _SECOND_SIDE / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    height, width = (max(round(side * factor), 1) for side in pixels.shape[:2])
    return resize(np.ascontiguousarray(pixels), width, height)


def find_face(pixels: np.ndarray) -> Face | None:
    """Find the largest face of an (H, W, 3) uint8 RGB picture."""
    return next(iter(find_faces(pixels, limit=1)), None)


def look_closer(face: Face, pixels: np.ndarray) -> Face:
    """The landmarks that more pixels give of a face found in a smaller copy of the picture.

    Args:
        face: in pixels of this picture; it is returned itself where it cannot be found alike.
        pixels: (H, W, 3) uint8 RGB that show the face and its surroundings.
    """
    return _found_again(face, pixels) or face


def _faces(result: Any, pixels: np.ndarray, shift: tuple[int, int] = (0, 0)) -> Iterator[Face]:
    """Convert MediaPipe's result on `pixels`, whose corner lies at `shift` in the photo."""
    height, width = pixels.shape[:2]
    for points, matrix, shapes in zip(result.face_landmarks, result.facial_transformation_matrixes,
                                      result.face_blendshapes, strict=True):
        landmarks = np.array([(p.x * width, p.y * height, p.z * width) for p in points], np.float32)
        landmarks[:, :2] += shift
        (x0, y0), (x1, y1) = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
        if min(x1 - x0, y1 - y0) < _MIN_FACE:
            continue
        # The nearest rotation to the upper left of the 4 x 4 metric matrix (y up).
        left, _, right = np.linalg.svd(np.asarray(matrix)[:3, :3])
        expression = {shape.category_name: float(shape.score) for shape in shapes
                      if shape.category_name != "_neutral"}
        yield Face(box=(float(x0), float(y0), float(x1), float(y1)), landmarks=landmarks,
                   mesh=canonical_mesh(landmarks), pose=pose_of(left @ right),
                   expression=MappingProxyType(expression))


def _full_range(pixels: np.ndarray) -> list[Face]:
    return list(_faces(tasks.detect("face_full_range", pixels), pixels))


def _confirmed_full_range(pixels: np.ndarray) -> list[Face]:
    return _confirmed(_full_range(pixels), pixels)


def _short_range(pixels: np.ndarray) -> list[Face]:
    return _confirmed(_faces(tasks.detect("face_short_range", pixels), pixels), pixels)


def _with_border(pixels: np.ndarray) -> list[Face]:
    shorter, longer = sorted(pixels.shape[:2])
    border = round(_BORDER * min(longer, _LONGEST_FACE * shorter))
    padded = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="edge")
    for task in ("face_full_range", "face_short_range"):
        found = _faces(tasks.detect(task, padded), padded, (-border, -border))
        faces = _confirmed(found, pixels)
        if faces:
            return faces
    return []


def _in_tiles(pixels: np.ndarray) -> list[Face]:
    height, width = pixels.shape[:2]
    tile_height, tile_width = round(_TILE * height), round(_TILE * width)
    found: list[Face] = []
    for top in (0, height - tile_height):
        for left in (0, width - tile_width):
            tile = pixels[top:top + tile_height, left:left + tile_width]
            found += _faces(tasks.detect("face_full_range", tile), tile, (left, top))
    return _distinct(_largest_first(_confirmed(found, pixels)))


def _confirmed(faces: Iterable[Face], pixels: np.ndarray) -> list[Face]:
    """Keep the faces that the full-range detector finds again, alike, in a crop round them."""
    return [face for face in faces if _found_again(face, pixels) is not None]


def _found_again(face: Face, pixels: np.ndarray) -> Face | None:
    """The full-range detector's find in a crop round a face that lies like it, if there is one."""
    crop, shift = crop_round(pixels, face.box, margin=0.75)
    again = _faces(tasks.detect("face_full_range", crop), crop, shift)
    size = max(face.size)
    return next((other for other in again if np.abs(
        other.landmarks[:, :2] - face.landmarks[:, :2]).mean() < 0.06 * size), None)


def _turned_look(look: Look, pixels: np.ndarray) -> list[Face]:
    """What one search finds in the picture turned by each quarter, each face once."""
    height, width = pixels.shape[:2]
    found = []
    for turns in (1, 3, 2):
        turned = np.ascontiguousarray(np.rot90(pixels, turns))
        found += [turn_face(face, -turns, *turned.shape[:2]) for face in look(turned)
                  if plausible(face, turned)]
    return _likeliest(found, pixels)


_SECOND_LOOKS: tuple[Look, ...] = (
    _short_range, functools.partial(_turned_look, _confirmed_full_range), _with_border, _in_tiles,
    *(functools.partial(_turned_look, look) for look in (_short_range, _with_border, _in_tiles)))


def _set_right(faces: Sequence[Face], doubted: Sequence[bool], pixels: np.ndarray) -> list[Face]:
    """Replace faces whose landmarks lie the wrong way round, and find the others of that turn."""
    right = [_as_it_lies(face, pixels) if doubt else face
             for face, doubt in zip(faces, doubted, strict=True)]
    for turn in {quarter_turns(face) for face in right} - {0}:
        turned = np.ascontiguousarray(np.rot90(pixels, turn))
        right += [turn_face(face, -turn, *turned.shape[:2])
                  for face in _confirmed_full_range(turned) if plausible(face, turned)]
    return _likeliest(right, pixels)


def _as_it_lies(face: Face, pixels: np.ndarray) -> Face:
    """The find at this face's place whose way up fits the pixels best: this one, or another."""
    others = list(_in_turned_surroundings(face, pixels))
    if not others:
        return face
    best = min([face, *others], key=lambda find: strangeness(find, pixels))
    turns = quarter_turns(best)
    if best is not face or turns == 0:
        return best
    # Depth and expression are read better off an upright face than off a sideways one.
    limit = misfit(best, pixels) + ALIKE
    return next((other for other in others
                 if quarter_turns(other) == turns and misfit(other, pixels) < limit), best)


def _in_turned_surroundings(face: Face, pixels: np.ndarray) -> Iterator[Face]:
    crop, (left, top) = crop_round(pixels, face.box, margin=0.75)
    for turns in range(4) if quarter_turns(face) else (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(crop, turns))
        for found in _full_range(turned):
            moved = shift_face(turn_face(found, -turns, *turned.shape[:2]), left, top)
            if quarter_turns(found) == 0 and overlap(moved.box, face.box) > _SAME_PLACE:
                yield moved


def _likeliest(faces: Sequence[Face], pixels: np.ndarray) -> list[Face]:
    """Of the finds at one place keep the one that fits the pixels best."""
    if len(faces) < 2:
        return list(faces)
    return _distinct(sorted(faces, key=lambda face: strangeness(face, pixels)))


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """Of faces in the order of their worth, keep the first at each place."""
    kept: list[Face] = []
    for face in faces:
        if all(overlap(face.box, other.box) < _SAME_PLACE for other in kept):
            kept.append(face)
    return kept


def _largest_first(faces: Sequence[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -face.size[0] * face.size[1])
