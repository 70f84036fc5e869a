"""Framing of pictures, and the subject's own mesh in another pose."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.control.framing import placement
from likeness.nodes.control.posing import posed_like, rotation, turned
from likeness.nodes.control.skeleton import JOINTS, in_frame
from likeness.nodes.control.templates import template, template_body, template_face, templates
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.mesh import LEFT_IRIS, RIGHT_IRIS, canonical_mesh
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import HeadPose


@pytest.fixture(scope="module")
def faces(assets) -> dict:
    return {name: find_face(read_photo(assets / f"{name}.jpg"))
            for name in ("biden", "biden2", "obama", "obama3")}


def test_crop_fills_the_map_and_keeps_the_centre():
    place = placement((400, 200), (100, 100), "crop")
    assert place.scale == 0.5
    assert place.move(np.array([[200.0, 100.0]])).tolist() == [[50, 50]]
    assert place.move(np.array([[100.0, 0.0], [300.0, 200.0]])).tolist() == [[0, 0], [100, 100]]


def test_letterbox_shows_the_whole_picture():
    place = placement((400, 200), (100, 100), "letterbox")
    assert place.move(np.array([[0.0, 0.0], [400.0, 200.0]])).tolist() == [[0, 25], [100, 75]]


def test_depth_is_scaled_with_the_picture():
    place = placement((400, 200), (800, 400), "crop")
    assert place.move(np.array([[1.0, 2.0, 3.0]])).tolist() == [[2, 4, 6]]


def test_an_unknown_fit_is_refused():
    with pytest.raises(LikenessError, match="crop, letterbox"):
        placement((4, 4), (4, 4), "stretch")


@pytest.mark.parametrize("angles", [(30, 0, 0), (0, 20, 0), (0, 0, 15), (-25, 10, -8)])
def test_a_rotation_reads_back_as_its_angles(angles):
    matrix = rotation(HeadPose(*angles))
    yaw = np.degrees(np.arctan2(matrix[0, 2], matrix[2, 2]))
    pitch = np.degrees(np.arcsin(-matrix[1, 2]))
    roll = np.degrees(np.arctan2(matrix[1, 0], matrix[1, 1]))
    assert np.allclose((yaw, pitch, roll), angles)


def test_positive_angles_turn_right_down_and_counter_clockwise():
    nose, crown, origin = np.array([[0.0, 0, 1]]), np.array([[0.0, 1, 0]]), np.zeros(3)
    assert turned(nose, HeadPose(30, 0, 0), origin)[0, 0] > 0.4
    assert turned(nose, HeadPose(0, 30, 0), origin)[0, 1] < -0.4
    assert turned(crown, HeadPose(0, 0, 30), origin)[0, 0] < -0.4


def test_a_mesh_posed_like_its_own_face_gives_the_face_back(faces):
    face = faces["biden"]
    again = posed_like(face.mesh, face)
    assert np.abs(again - face.landmarks).max() < 0.01 * max(face.size)


def test_another_mesh_takes_the_pose_but_keeps_its_own_shape(faces):
    face, own = faces["obama3"], faces["biden2"].mesh
    posed = posed_like(own, face)
    assert np.linalg.norm(posed[4] - face.landmarks[4]) < 0.1 * max(face.size)
    assert np.abs(canonical_mesh(posed.astype(np.float32)) - own).max() < 0.1  # centimetres
    assert np.abs(canonical_mesh(face.landmarks) - own).max() > 0.5


def test_posing_leaves_the_mesh_and_the_face_unchanged(faces):
    own, face = faces["biden2"].mesh, faces["obama"]
    before = own.copy(), face.landmarks.copy()
    posed_like(own, face)
    assert np.array_equal(own, before[0]) and np.array_equal(face.landmarks, before[1])


@pytest.mark.parametrize("size", [(896, 1152), (1024, 1024), (512, 1024), (1216, 832)])
@pytest.mark.parametrize("name", list(templates()))
def test_every_template_keeps_the_whole_face_on_the_map(name, size, faces):
    points = template_face(template(name), faces["obama"].mesh, *size)
    assert (points[:, :2] > 0).all() and (points[:, :2] < size).all()


def test_a_template_frames_the_face_as_it_says(faces):
    points = template_face(template("frontal"), faces["obama"].mesh, 800, 1000)
    assert np.ptp(points[:, 1]) == pytest.approx(0.34 * 1000, rel=1e-3)
    middle = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
    assert middle == pytest.approx([400, 400], abs=0.5)


def test_a_template_scales_with_the_map(faces):
    small = template_face(template("three-quarter left"), faces["obama"].mesh, 400, 500)
    large = template_face(template("three-quarter left"), faces["obama"].mesh, 800, 1000)
    assert np.allclose(small * 2, large)


def test_left_and_right_templates_turn_to_their_side_of_the_picture(faces):
    mesh = faces["obama"].mesh

    def nose_shift(name: str) -> float:
        points = template_face(template(name), mesh, 800, 1000)
        return points[4, 0] - (points[:, 0].min() + points[:, 0].max()) / 2

    assert nose_shift("three-quarter left") < -30
    assert nose_shift("three-quarter right") > 30
    assert abs(nose_shift("frontal")) < 15


def test_a_template_keeps_the_subjects_proportions(faces):
    """Two people in one template differ by their own widths, the pose by nothing."""
    widths = {}
    for name in ("obama", "biden2"):
        mesh = faces[name].mesh
        points = template_face(template("frontal"), mesh, 800, 1000)
        widths[name] = np.ptp(points[:, 0]) / np.ptp(points[:, 1])
        assert widths[name] == pytest.approx(np.ptp(mesh[:, 0]) / np.ptp(mesh[:, 1]), rel=1e-3)
    assert abs(widths["obama"] - widths["biden2"]) > 0.005


def test_body_and_face_of_a_template_agree(faces):
    mesh = faces["obama"].mesh
    points = template_face(template("frontal"), mesh, 896, 1152)
    body = template_body(template("frontal"), mesh, 896, 1152)
    for joint, index in (("nose", 4), ("right_eye", RIGHT_IRIS), ("left_eye", LEFT_IRIS)):
        assert np.allclose(body.points[JOINTS.index(joint)], points[index, :2])
    shoulders = body.points[[JOINTS.index("right_shoulder"), JOINTS.index("left_shoulder")]]
    assert shoulders[0, 0] < shoulders[1, 0]
    assert (shoulders[:, 1] > points[:, 1].max()).all()


def test_the_ear_that_turns_away_is_hidden(faces):
    mesh = faces["obama"].mesh
    left = template_body(template("three-quarter left"), mesh, 896, 1152)
    assert left.confidence[JOINTS.index("right_ear")] == 0
    assert left.confidence[JOINTS.index("left_ear")] == 1
    right = template_body(template("three-quarter right"), mesh, 896, 1152)
    assert right.confidence[JOINTS.index("left_ear")] == 0
    assert right.confidence[JOINTS.index("right_ear")] == 1


@pytest.mark.parametrize("name", list(templates()))
def test_every_template_shows_both_shoulders(name, faces):
    body = template_body(template(name), faces["obama"].mesh, 896, 1152)
    seen = in_frame(body, 896, 1152, 0.5)
    assert seen[[JOINTS.index("right_shoulder"), JOINTS.index("left_shoulder")]].all()


def test_an_unknown_template_is_an_error_that_lists_the_known_ones():
    with pytest.raises(LikenessError, match="frontal.*half length"):
        template("profile")
