"""The aligned crops that FaceID Plus looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.align import five_points, similarity_transform
from likeness.nodes.faces.detect import find_face
from likeness.nodes.identity.pictures import arcface_template, face_crops
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo


def test_the_template_scales_as_insightface_scales_it():
    face_align = pytest.importorskip("insightface.utils.face_align")
    points = np.array([(10, 12), (40, 11), (25, 30), (14, 44), (38, 45)], np.float32)
    for size in (112, 224, 256):
        theirs = face_align.estimate_norm(points, size)
        ours = similarity_transform(points, arcface_template(size))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_size_of_neither_rule_is_refused():
    with pytest.raises(ValueError, match="multiple of 112 or 128, got 200"):
        arcface_template(200)


@pytest.mark.parametrize("size", [224, 256])
def test_the_face_lies_on_the_template_in_the_crop(assets: Path, size: int):
    path = assets / "obama.jpg"
    photo = Photo(file=path, name="obama.jpg", face=find_face(read_photo(path)))
    crop = face_crops([photo], size)[0]
    assert crop.shape == (size, size, 3)
    again = find_face(crop)
    np.testing.assert_allclose(five_points(again), arcface_template(size), atol=0.05 * size)


def test_a_photo_that_is_gone_or_has_no_face_is_named(tmp_path: Path, assets: Path):
    with pytest.raises(LikenessError, match="`empty.jpg` has no known face"):
        face_crops([Photo(file=assets / "obama.jpg", name="empty.jpg")], 224)
    face = find_face(read_photo(assets / "obama.jpg"))
    with pytest.raises(LikenessError, match="`gone.jpg` cannot be read any more"):
        face_crops([Photo(file=tmp_path / "gone.jpg", name="gone.jpg", face=face)], 224)
