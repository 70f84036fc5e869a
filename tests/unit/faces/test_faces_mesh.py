"""The canonical mesh forgets pose and place; the mask covers the face and nothing far away."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces import mesh
from likeness.nodes.faces.detect import find_face
from PIL import Image


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of surface points in centimetres."""
    return float(np.linalg.norm(a[:468] - b[:468], axis=1).mean())


def turned(landmarks: np.ndarray, yaw: float, scale: float, shift: float) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return (landmarks @ rotation.T * scale + shift).astype(np.float32)


def test_the_mesh_is_the_same_wherever_the_face_is(seen):
    _, face = seen("obama")
    moved = mesh.canonical_mesh(turned(face.landmarks, yaw=0.6, scale=3.0, shift=200.0))
    assert distance(moved, face.mesh) < 0.01


def test_the_mesh_is_upright_with_the_nose_in_front(seen):
    _, face = seen("obama3")
    nose, forehead, chin = face.mesh[1], face.mesh[10], face.mesh[152]
    assert forehead[1] > nose[1] > chin[1]
    assert nose[2] > forehead[2]
    assert face.mesh[263, 0] > 0 > face.mesh[33, 0], "the image-right eye is on the right"


def test_a_tilted_photo_gives_nearly_the_same_mesh(seen):
    pixels, face = seen("obama")
    tilted = Image.fromarray(pixels).rotate(25, fillcolor=(128, 128, 128))
    assert distance(find_face(np.asarray(tilted)).mesh, face.mesh) < 0.25


def test_the_subject_mesh_trusts_frontal_faces_more(seen):
    _, front = seen("obama")
    _, other = seen("obama3")
    side = dataclasses.replace(other, pose=dataclasses.replace(other.pose, yaw=70.0))
    mean = mesh.subject_mesh([front, side])
    assert mean.shape == (478, 3) and mean.dtype == np.float32
    assert distance(mean, front.mesh) < 0.3 * distance(mean, side.mesh)


def test_no_faces_make_no_mesh():
    with pytest.raises(LikenessError, match="at least one"):
        mesh.subject_mesh([])


def test_the_contours_have_the_published_number_of_edges():
    parts = (mesh.FACE_OVAL, mesh.LIPS, mesh.LEFT_EYE, mesh.RIGHT_EYE, mesh.LEFT_BROW,
             mesh.RIGHT_BROW)
    assert [len(part) for part in parts] == [36, 40, 16, 16, 8, 8]
    assert len(mesh.CONTOURS) == 124 == len(set(mesh.CONTOURS))


def test_left_tables_lie_on_the_persons_left(seen):
    _, face = seen("obama")
    middle = face.landmarks[1, 0]
    left = [face.landmarks[i, 0] for edge in mesh.LEFT_EYE + mesh.LEFT_BROW for i in edge]
    right = [face.landmarks[i, 0] for edge in mesh.RIGHT_EYE + mesh.RIGHT_BROW for i in edge]
    assert min(left) > middle > max(right)
    assert face.landmarks[mesh.LEFT_IRIS, 0] > middle > face.landmarks[mesh.RIGHT_IRIS, 0]


def test_the_mask_covers_face_and_forehead_and_nothing_far_away(seen):
    pixels, face = seen("obama")
    height, width = pixels.shape[:2]
    mask = mesh.face_mask(face, height, width)
    assert mask.shape == (height, width) and mask.dtype == np.float32
    inner = face.landmarks[[1, 33, 263, 61, 291, 9], :2].round().astype(int)
    assert mask[inner[:, 1], inner[:, 0]].min() > 0.99
    x0, y0, x1, y1 = face.box
    top = int(face.landmarks[10, 1] - 0.15 * (y1 - y0))
    assert mask[top, int(face.landmarks[10, 0])] > 0.5, "the hairline above the landmarks"
    rows, columns = np.nonzero(mask)
    size = max(face.size)
    assert rows.min() > y0 - 0.4 * size and rows.max() < y1 + 0.15 * size
    assert columns.min() > x0 - 0.15 * size and columns.max() < x1 + 0.15 * size


def test_the_mask_has_a_soft_edge(seen):
    pixels, face = seen("obama")
    mask = mesh.face_mask(face, *pixels.shape[:2])
    assert np.abs(np.diff(mask, axis=1)).max() < 0.15
    assert ((mask > 0.05) & (mask < 0.95)).sum() > 1000


def test_grow_widens_and_narrows_the_mask(seen):
    pixels, face = seen("obama")
    areas = [mesh.face_mask(face, *pixels.shape[:2], grow=grow).sum() for grow in (-0.2, 0, 0.2)]
    assert areas[0] < 0.75 * areas[1] < areas[1] < 0.75 * areas[2]
