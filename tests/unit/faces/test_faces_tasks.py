"""What MediaPipe does to careless callers does not reach ours."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces import tasks
from likeness.nodes.faces.detect import find_face


def image(pixels: np.ndarray, kind: str = "SRGB"):
    mediapipe = tasks._mediapipe()
    return mediapipe.Image(image_format=getattr(mediapipe.ImageFormat, kind), data=pixels)


def count(pixels: np.ndarray) -> int:
    return len(tasks.detect("face_full_range", pixels).face_landmarks)


@pytest.mark.parametrize("view", [
    pytest.param(lambda p: p[:, ::-1], id="mirrored"),
    pytest.param(lambda p: p[::2, ::2], id="every other pixel"),
    pytest.param(lambda p: p[3:, 5:], id="cut out"),
    pytest.param(lambda p: p[..., ::-1], id="colours swapped"),
    pytest.param(np.asfortranarray, id="columns first"),
])
def test_a_view_is_read_as_its_copy(seen, view):
    strided = view(seen("obama")[0])
    assert not strided.flags.c_contiguous
    results = [tasks.detect("face_full_range", pixels).face_landmarks[0]
               for pixels in (strided, np.ascontiguousarray(strided))]
    assert [(p.x, p.y) for p in results[0]] == [(p.x, p.y) for p in results[1]]


@pytest.mark.parametrize("shape, kind", [
    ((64, 64), np.uint8), ((64, 64, 1), np.uint8), ((64, 64, 4), np.uint8),
    ((64, 64, 3), np.float32), ((64, 64, 3), np.uint16), ((0, 64, 3), np.uint8)])
def test_what_is_not_rgb_in_eight_bits_never_reaches_the_graph(seen, shape, kind):
    assert count(seen("obama")[0]) == 1
    task = tasks._open["face_full_range"]
    with pytest.raises(ValueError, match="uint8"):
        tasks.detect("face_full_range", np.zeros(shape, kind))
    assert tasks._open["face_full_range"] is task
    assert count(seen("obama")[0]) == 1


def test_a_poisoned_graph_is_replaced(seen):
    """Grey pixels given past the wrapper: every later call of that graph fails."""
    pixels, _ = seen("obama")
    assert count(pixels) == 1
    task = tasks._open["face_full_range"]
    with pytest.raises((RuntimeError, ValueError)):
        task.detect(image(np.ascontiguousarray(pixels[..., 0]), "GRAY8"))
    with pytest.raises(LikenessError, match="failed on a 910 x 1137 picture"):
        count(pixels)
    assert count(pixels) == 1
    assert tasks._open["face_full_range"] is not task


def test_a_failed_graph_left_to_the_garbage_collector_blocks_nothing(seen):
    pixels, _ = seen("obama")
    count(pixels)
    with pytest.raises((RuntimeError, ValueError)):
        tasks._open["face_full_range"].detect(image(np.zeros((64, 64), np.uint8), "GRAY8"))
    with pytest.raises(LikenessError):
        count(pixels)
    found = []
    worker = threading.Thread(target=lambda: (gc.collect(), found.append(count(pixels))),
                              daemon=True)
    worker.start()
    worker.join(timeout=20)
    assert found == [1]


def test_a_task_that_was_closed_behind_our_back_is_no_picture_without_faces(seen):
    pixels, _ = seen("obama")
    count(pixels)
    tasks._open["face_full_range"].close()
    assert count(pixels) == 1


def test_closing_while_others_detect_loses_no_face(seen):
    pixels, _ = seen("obama")
    found: list[int] = []
    workers = [threading.Thread(target=lambda: found.extend(count(pixels) for _ in range(4)))
               for _ in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(3):
        tasks.close_all()
    for worker in workers:
        worker.join(timeout=30)
    assert found == [1] * 12


def test_one_model_does_not_wait_for_another(seen):
    pixels, _ = seen("obama")
    tasks.detect("selfie", pixels)
    done = threading.Event()
    with tasks._locks["face_full_range"]:
        worker = threading.Thread(target=lambda: (tasks.detect("selfie", pixels), done.set()),
                                  daemon=True)
        worker.start()
        assert done.wait(timeout=60)


def test_a_width_that_is_no_multiple_of_four_is_read_whole(seen):
    pixels, face = seen("obama")
    for width in (905, 906, 907):
        found = find_face(pixels[:, :width])
        np.testing.assert_allclose(found.landmarks[:, :2], face.landmarks[:, :2],
                                   atol=0.03 * max(face.size))
