"""The two drawings, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.control.drawing import (
    FACE_IRISES,
    FACE_LINES,
    RAINBOW,
    draw_body,
    draw_face_mesh,
    xinsir_scale,
)
from likeness.nodes.control.skeleton import JOINTS, LIMBS, Skeleton, from_mediapipe, openpose_people
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo, resize


def canvas(width: int = 512, height: int = 512) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def colours(image: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(part) for part in pixel) for pixel in image.reshape(-1, 3)} - {(0, 0, 0)}


@pytest.fixture(scope="module")
def photo(assets) -> np.ndarray:
    return resize(read_photo(assets / "biden2.jpg"), 512, 640)


@pytest.fixture(scope="module")
def landmarks(photo) -> np.ndarray:
    return find_face(photo).landmarks


@pytest.fixture(scope="module")
def face_map(photo, landmarks) -> np.ndarray:
    drawn = canvas(512, 640)
    draw_face_mesh(drawn, landmarks)
    return drawn


def test_the_face_map_has_124_edges_and_two_irises():
    assert [len(edges) for edges, _ in FACE_LINES] == [36, 40, 16, 8, 16, 8]
    assert [index for index, _ in FACE_IRISES] == [468, 473]


def test_the_face_map_has_the_eight_colours_and_no_other(face_map):
    assert colours(face_map) == {
        (10, 200, 10), (10, 180, 10), (180, 200, 10), (180, 220, 10), (250, 200, 10),
        (10, 200, 180), (10, 220, 180), (10, 200, 250)}


def test_the_face_map_equals_the_training_drawer(photo, landmarks, face_map):
    """CrucibleAI's recipe with MediaPipe's drawing function: BGR, then reversed, then pupils."""
    from mediapipe.tasks.python.components.containers.landmark import NormalizedLandmark
    from mediapipe.tasks.python.vision import FaceLandmarksConnections as Parts
    from mediapipe.tasks.python.vision import drawing_utils as mediapipe_drawing

    parts = {"FACE_OVAL": (10, 200, 10), "LIPS": (10, 180, 10), "LEFT_EYE": (180, 200, 10),
             "LEFT_EYEBROW": (180, 220, 10), "RIGHT_EYE": (10, 200, 180),
             "RIGHT_EYEBROW": (10, 220, 180)}
    height, width = photo.shape[:2]
    points = [NormalizedLandmark(x=x / width, y=y / height, z=0.0)
              for x, y, _ in landmarks.astype(float)]
    expected = canvas(width, height)
    for name, colour in parts.items():
        edges = getattr(Parts, f"FACE_LANDMARKS_{name}")
        spec = mediapipe_drawing.DrawingSpec(color=colour, thickness=2)
        mediapipe_drawing.draw_landmarks(expected, points, edges, None,
                                         {(edge.start, edge.end): spec for edge in edges})
    for index, colour in ((468, (10, 200, 250)), (473, (250, 200, 10))):
        x, y = int(landmarks[index, 0]), int(landmarks[index, 1])
        expected[y - 2:y + 2, x - 2:x + 2] = colour
    assert np.array_equal(face_map, expected[:, :, ::-1])


def test_an_iris_is_a_block_of_four_by_four(face_map, landmarks):
    for index, colour in FACE_IRISES:
        x, y = (int(value) for value in landmarks[index, :2])
        block = (face_map == colour).all(axis=-1)
        assert block.sum() == 16
        assert block[y - 2:y + 2, x - 2:x + 2].all()


def test_the_nose_is_not_drawn(face_map, landmarks):
    x, y = (int(value) for value in landmarks[4, :2])
    assert not face_map[y - 12:y + 12, x - 12:x + 12].any()


def test_the_warm_eye_is_on_the_left_of_the_picture(face_map):
    warm = np.argwhere((face_map == (180, 200, 10)).all(axis=-1))[:, 1]
    cold = np.argwhere((face_map == (10, 200, 180)).all(axis=-1))[:, 1]
    assert warm.max() < cold.min()


def test_a_mirrored_face_keeps_its_colours_on_their_sides(photo):
    mirrored = canvas(512, 640)
    draw_face_mesh(mirrored, find_face(np.ascontiguousarray(photo[:, ::-1])).landmarks)
    warm = np.argwhere((mirrored == (180, 200, 10)).all(axis=-1))[:, 1]
    cold = np.argwhere((mirrored == (10, 200, 180)).all(axis=-1))[:, 1]
    assert warm.max() < cold.min()


def test_edges_with_an_end_outside_are_left_out(landmarks):
    shifted, drawn = landmarks.copy(), canvas(512, 640)
    shifted[:, 0] += 512 - landmarks[468, 0] + 3  # the iris on the left just leaves on the right
    draw_face_mesh(drawn, shifted)
    assert (250, 200, 10) not in colours(drawn) and (10, 200, 180) not in colours(drawn)
    assert (10, 200, 10) in colours(drawn)


@pytest.fixture
def body() -> Skeleton:
    """A person facing the camera, arms hanging: their right is on the left of the picture."""
    x = {"nose": 256, "neck": 256, "shoulder": 70, "elbow": 90, "wrist": 100, "hip": 45, "knee": 50,
         "ankle": 55, "eye": 14, "ear": 30}
    y = {"nose": 80, "neck": 140, "shoulder": 140, "elbow": 220, "wrist": 290, "hip": 290,
         "knee": 390, "ankle": 480, "eye": 68, "ear": 74}
    points = []
    for name in JOINTS:
        side, _, part = name.rpartition("_")
        shift = {"right": -1, "left": 1}.get(side, 0) * x[part]
        points.append((256 + shift, y[part]))
    return Skeleton(np.array(points, float), np.ones(18))


def test_a_joint_has_its_full_colour_at_its_place(body):
    drawn = canvas()
    draw_body(drawn, body)
    for (x, y), colour in zip(body.points.astype(int), RAINBOW, strict=True):
        assert tuple(drawn[y, x]) == colour


def test_a_limb_has_its_colour_at_six_tenths_in_its_middle(body):
    drawn = canvas()
    draw_body(drawn, body)
    named = {(2, 3): (153, 102, 0), (5, 6): (102, 153, 0), (1, 8): (0, 153, 0),
             (1, 11): (0, 153, 153), (1, 0): (0, 0, 153)}
    for (start, end), colour in named.items():
        x, y = ((body.points[start] + body.points[end]) / 2).astype(int)
        assert tuple(drawn[y, x]) == colour


def test_the_body_map_holds_seventeen_limbs_and_eighteen_joints(body):
    drawn = canvas(1024, 1024)
    draw_body(drawn, Skeleton(body.points * 2, body.confidence))
    assert len(LIMBS) == 17
    limbs = {tuple(int(part * 0.6) for part in colour) for colour in RAINBOW[:17]}
    assert colours(drawn) == limbs | set(RAINBOW)


def test_a_limb_is_nine_pixels_wide_and_a_joint_too(body):
    drawn = canvas()
    draw_body(drawn, body)
    middle = int((body.points[8, 1] + body.points[9, 1]) / 2)  # the right thigh, nearly upright
    thigh = tuple(int(part * 0.6) for part in RAINBOW[LIMBS.index((8, 9))])
    assert (drawn[middle] == thigh).all(axis=-1).sum() == 9
    ankle = body.points[10].astype(int)
    assert (drawn[ankle[1]] == RAINBOW[10]).all(axis=-1).sum() == 9


def test_joints_that_are_not_seen_take_their_limbs_with_them(body):
    confidence = body.confidence.copy()
    confidence[JOINTS.index("right_elbow")] = 0.2
    drawn = canvas()
    draw_body(drawn, Skeleton(body.points, confidence), least=0.5)
    found = colours(drawn)
    elbow = JOINTS.index("right_elbow")
    assert RAINBOW[elbow] not in found
    assert tuple(int(part * 0.6) for part in RAINBOW[2]) not in found  # shoulder to elbow
    assert RAINBOW[JOINTS.index("right_wrist")] in found


def test_joints_outside_the_map_are_left_out(body):
    drawn = canvas(512, 300)
    draw_body(drawn, body)
    found = colours(drawn)
    assert RAINBOW[JOINTS.index("right_hip")] in found
    assert RAINBOW[JOINTS.index("right_knee")] not in found


def test_mediapipe_landmarks_become_the_eighteen_joints():
    landmarks = np.stack([np.arange(33), np.arange(33) * 10.0], axis=1)
    visibility = np.full(33, 0.9)
    visibility[12] = 0.4
    skeleton = from_mediapipe(landmarks, visibility)
    expected = {"nose": 0, "right_shoulder": 12, "right_elbow": 14, "right_wrist": 16,
                "left_shoulder": 11, "left_elbow": 13, "left_wrist": 15, "right_hip": 24,
                "right_knee": 26, "right_ankle": 28, "left_hip": 23, "left_knee": 25,
                "left_ankle": 27, "right_eye": 5, "left_eye": 2, "right_ear": 8, "left_ear": 7}
    for name, number in expected.items():
        assert skeleton.points[JOINTS.index(name), 0] == number
    assert skeleton.points[JOINTS.index("neck"), 0] == 11.5
    assert skeleton.confidence[JOINTS.index("neck")] == 0.4


def test_xinsir_scale_grows_with_the_longer_side():
    sizes = {(499, 100): 1, (500, 100): 2, (999, 999): 2, (768, 1024): 3, (2048, 1024): 4,
             (6000, 100): 7, (9000, 100): 7}
    assert all(xinsir_scale(*size) == scale for size, scale in sizes.items())


def test_xinsir_scale_widens_limbs_and_joints(body):
    drawn = canvas()
    draw_body(drawn, body, scale=2)
    ankle = body.points[10].astype(int)
    assert (drawn[ankle[1]] == RAINBOW[10]).all(axis=-1).sum() == 17


def test_openpose_json_has_flat_triples_and_zeros_for_absent_joints(body):
    confidence = body.confidence.copy()
    confidence[0] = 0.1
    data = openpose_people([Skeleton(body.points, confidence)], 512, 512, least=0.5)
    flat = data["people"][0]["pose_keypoints_2d"]
    assert len(flat) == 54 and (data["canvas_width"], data["canvas_height"]) == (512, 512)
    assert flat[:3] == [0, 0, 0] and flat[3:6] == [256, 140, 1]
