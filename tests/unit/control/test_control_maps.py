"""Maps from real photos and from templates, through the logic and the nodes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from likeness.nodes.control.maps import BodyOptions, FaceOptions, body_maps, face_maps
from likeness.nodes.control.nodes import LikenessFaceMeshMap, LikenessPoseMap
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo, to_image
from likeness.nodes.sockets import Subject

SIZE = (512, 640)


@pytest.fixture(scope="module")
def obama(assets) -> np.ndarray:
    return read_photo(assets / "obama.jpg")


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    """A picture of nobody."""
    rows = np.linspace(80, 160, 480, dtype=np.uint8)
    return np.repeat(np.repeat(rows[:, None, None], 400, axis=1), 3, axis=2)


@pytest.fixture(scope="module")
def subject(assets) -> Subject:
    mesh = find_face(read_photo(assets / "biden2.jpg")).mesh
    return Subject(name="Joe", trigger="ohwx", class_noun="man", references=(), held_out=(),
                   embeddings={}, spread={}, mesh=mesh)


def box(maps, picture: int = 0) -> list[float]:
    return maps.report["pictures"][picture]["drawn"][0]["box"]


def test_one_map_for_each_picture_at_the_size_asked_for(obama):
    maps = face_maps([obama, obama], SIZE)
    assert maps.pixels.shape == (2, 640, 512, 3) and maps.count == 2
    assert np.array_equal(maps.pixels[0], maps.pixels[1])


def test_the_map_lies_where_the_face_lies_after_the_crop(obama):
    height, width = obama.shape[:2]
    scale = max(512 / width, 640 / height)
    face = find_face(obama)
    expected = np.array(face.box) * scale + np.tile(
        [(512 - width * scale) / 2, (640 - height * scale) / 2], 2)
    assert box(face_maps([obama], SIZE)) == pytest.approx(list(expected), abs=0.1)


def test_letterbox_and_crop_differ_where_the_shapes_differ(obama):
    wide = (1024, 640)
    crop = FaceOptions(smallest=16)
    letterbox = face_maps([obama], wide, "letterbox", crop)
    x0, _, x1, _ = box(letterbox)
    scale = min(1024 / obama.shape[1], 640 / obama.shape[0])
    assert x1 - x0 == pytest.approx(find_face(obama).size[0] * scale, abs=0.2)


def test_a_crop_that_loses_the_face_is_an_error(assets):
    biden = read_photo(assets / "biden.jpg")  # full height: the middle is his chest
    with pytest.raises(LikenessError, match="Picture 1 of 1.*the map shows"):
        face_maps([biden], (1024, 640))


def test_a_picture_without_a_face_is_an_error_by_default(obama, wall):
    with pytest.raises(LikenessError, match="Picture 2 of 2 has no face to draw .none was found"):
        face_maps([obama, wall], SIZE)


def test_skip_leaves_the_picture_out_and_says_so(obama, wall):
    maps = face_maps([wall, obama], SIZE, if_none="skip")
    assert len(maps.pixels) == 1 and maps.pixels.any()
    assert [row["status"] for row in maps.report["pictures"]] == ["skipped", "drawn"]


def test_skipping_everything_is_an_error(wall):
    with pytest.raises(LikenessError, match="None of the 2 pictures has a face"):
        face_maps([wall, wall], SIZE, if_none="skip")
    with pytest.raises(LikenessError, match="None of the 1 pictures has a body"):
        body_maps([wall], SIZE, if_none="skip")


def test_a_face_below_the_smallest_size_is_refused_with_its_size(obama):
    with pytest.raises(LikenessError, match="a face of .* pixels, below `smallest_face` .300."):
        face_maps([obama], SIZE, options=FaceOptions(smallest=300))


def test_an_unknown_policy_is_refused(obama):
    with pytest.raises(LikenessError, match="error, skip"):
        face_maps([obama], SIZE, if_none="blank")


def test_a_subject_changes_the_face_but_not_where_it_looks(obama, subject):
    own, other = face_maps([obama], SIZE), face_maps([obama], SIZE, subject=subject)
    assert not np.array_equal(own.pixels, other.pixels)
    facts = [maps.report["pictures"][0]["drawn"][0] for maps in (own, other)]
    assert facts[0]["yaw"] == facts[1]["yaw"]
    assert np.abs(np.subtract(facts[0]["box"], facts[1]["box"])).max() < 15


def test_a_redrawn_subject_is_found_in_the_same_shape_by_its_own_lines(assets, subject):
    """The subject's own photo and the subject's mesh in that photo's pose draw alike."""
    photo = read_photo(assets / "biden2.jpg")
    own = face_maps([photo], SIZE).pixels[0].any(axis=-1)
    posed = face_maps([photo], SIZE, subject=subject).pixels[0].any(axis=-1)
    assert (own & posed).sum() > 0.9 * own.sum()


def test_the_pictures_stay_as_they_are(obama):
    before = obama.copy()
    face_maps([obama], SIZE)
    body_maps([obama], SIZE)
    assert np.array_equal(obama, before)


def joints(maps) -> np.ndarray:
    flat = maps.report["pictures"][0]["drawn"][0]["people"][0]["pose_keypoints_2d"]
    return np.array(flat).reshape(18, 3)


def test_the_body_map_puts_the_right_shoulder_on_the_left_of_the_picture(obama):
    points = joints(body_maps([obama], SIZE))
    assert points[2, 0] < points[1, 0] < points[5, 0]
    assert points[14, 0] < points[0, 0] < points[15, 0]


def test_mirroring_the_picture_swaps_the_bodys_sides(obama):
    points = joints(body_maps([obama], SIZE))
    mirrored = joints(body_maps([np.ascontiguousarray(obama[:, ::-1])], SIZE))
    mirrored[:, 0] = 512 - mirrored[:, 0]
    for right, left in ((2, 5), (14, 15), (16, 17)):  # shoulders, eyes, ears
        for one, other in ((right, left), (left, right)):
            # The landmarker moves a little when its picture is mirrored, less than a body's half.
            assert abs(mirrored[one, 0] - points[other, 0]) < abs(mirrored[one, 0] - points[one, 0])


def test_guessed_joints_outside_the_picture_are_not_drawn_beside_it(assets):
    photo = read_photo(assets / "biden2.jpg")
    points = joints(body_maps([photo], (1024, 2048), "letterbox"))
    assert (points[[8, 9, 10, 11, 12, 13], 2] == 0).all()  # hips and legs are out of the picture


def test_xinsirs_drawing_is_wider(obama):
    thin = body_maps([obama], (1024, 1280)).pixels.any(axis=-1).sum()
    wide = body_maps([obama], (1024, 1280), options=BodyOptions(xinsir=True))
    assert wide.pixels.any(axis=-1).sum() > 2 * thin


def test_a_picture_without_a_body_is_an_error(wall):
    with pytest.raises(LikenessError, match="Picture 1 of 1 has no body to draw"):
        body_maps([wall], SIZE)


FACE = {"width": 512, "height": 640, "fit": "crop", "faces": 1, "smallest_face": 64,
        "if_none": "error"}
POSE = {"width": 512, "height": 640, "fit": "crop", "people": 1, "confidence": 0.5,
        "drawing": "openpose", "if_none": "error"}


def test_the_face_node_gives_maps_count_report_and_preview(obama):
    output = LikenessFaceMeshMap.execute("from image", image=to_image(obama), **FACE)
    image, count, report = output.result
    assert image.shape == (1, 640, 512, 3) and image.dtype == torch.float32 and count == 1
    assert image.max() <= 1 and json.loads(report)["pictures"][0]["status"] == "drawn"
    assert output.ui["images"] and output.ui["text"] == (report,)


def test_the_pose_node_gives_maps_count_report_and_preview(obama):
    output = LikenessPoseMap.execute("from image", image=to_image(obama), **POSE)
    image, count, report = output.result
    assert image.shape == (1, 640, 512, 3) and count == 1
    assert json.loads(report)["pictures"][0]["drawn"][0]["canvas_width"] == 512
    assert output.ui["images"]


@pytest.mark.parametrize(("node", "values"), [(LikenessFaceMeshMap, FACE), (LikenessPoseMap, POSE)])
def test_a_template_needs_no_picture_but_a_subject(node, values, subject):
    image, count, report = node.execute("three-quarter left", subject=subject, **values).result
    assert image.shape == (1, 640, 512, 3) and image.any() and count == 1
    assert json.loads(report)["source"] == "three-quarter left"
    with pytest.raises(LikenessError, match="connect a subject"):
        node.execute("three-quarter left", **values)


@pytest.mark.parametrize(("node", "values"), [(LikenessFaceMeshMap, FACE), (LikenessPoseMap, POSE)])
def test_from_image_needs_an_image(node, values, subject):
    with pytest.raises(LikenessError, match="needs a picture"):
        node.execute("from image", subject=subject, **values)


def test_a_template_on_a_tiny_map_is_refused_with_the_faces_size(subject):
    with pytest.raises(LikenessError, match="a face of .* pixels"):
        LikenessFaceMeshMap.execute("half length", subject=subject,
                                    **{**FACE, "width": 128, "height": 128})


def test_an_unknown_drawing_is_refused(obama):
    with pytest.raises(LikenessError, match="openpose, xinsir"):
        LikenessPoseMap.execute("from image", image=to_image(obama),
                                **{**POSE, "drawing": "dwpose"})
