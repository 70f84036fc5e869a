"""Control maps of faces and bodies: from pictures, or from a template with the subject's face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LikenessError
from ..faces.body import find_bodies
from ..faces.detect import find_faces
from ..sockets import HeadPose, Subject
from .drawing import draw_body, draw_face_mesh, xinsir_scale
from .framing import CROP, Placement, placement
from .posing import posed_like
from .skeleton import Skeleton, from_mediapipe, in_frame, openpose_people
from .templates import template, template_body, template_face

ERROR = "error"
SKIP = "skip"
POLICIES = (ERROR, SKIP)

Size = tuple[int, int]  # width, height

# Share of a face's landmarks on the map below which its lines no longer say where the face is.
_LEAST_SHOWN = 0.6


@dataclass(frozen=True, eq=False)
class Maps:
    """Drawn control maps."""

    pixels: np.ndarray  # (B, H, W, 3) uint8 RGB
    count: int  # faces or bodies on all maps together
    report: dict[str, Any]


@dataclass(frozen=True)
class FaceOptions:
    """Which faces of a picture are drawn."""

    faces: int = 1  # at most, the largest first
    smallest: int = 64  # pixels on the map; CrucibleAI's training data had none below


@dataclass(frozen=True)
class BodyOptions:
    """Which bodies of a picture are drawn, and how wide."""

    people: int = 1  # at most, the largest first
    least: float = 0.5  # confidence of a joint, 0..1
    xinsir: bool = False  # wider limbs and joints on large maps


# Paints a picture's finds on a canvas; gives what it painted, and what it left out, in words.
Painted = tuple[list[dict[str, Any]], list[str]]
Painter = Callable[[np.ndarray, np.ndarray, Placement], Painted]


def face_maps(pictures: Sequence[np.ndarray], size: Size, fit: str = CROP,
              options: FaceOptions = FaceOptions(), subject: Subject | None = None,
              if_none: str = ERROR, on_item: Callable[[int], None] = lambda done: None) -> Maps:
    """Draw the face mesh of each (H, W, 3) uint8 picture on a map of its own.

    Args:
        subject: draw this person's mean face in the pose of the picture's largest face, so that
            the picture's bone structure is not imposed; None draws the faces that are there.
        if_none: `error`, or `skip` to leave pictures without a face out of the batch.

    Raises:
        LikenessError: no face to draw in a picture, or in any when skipping.
    """
    def paint(canvas: np.ndarray, picture: np.ndarray, place: Placement) -> Painted:
        drawn, left_out = [], []
        for face in find_faces(picture, limit=1 if subject else options.faces):
            points = posed_like(subject.mesh, face) if subject else face.landmarks
            fault = _fault(place.move(points), size, options)
            if fault:
                left_out.append(fault)
                continue
            points = place.move(_inside(points, picture))
            draw_face_mesh(canvas, points)
            drawn.append(_face_facts(points, face.pose))
        return drawn, left_out

    return _draw_all(pictures, size, fit, if_none, "face", paint, on_item)


def body_maps(pictures: Sequence[np.ndarray], size: Size, fit: str = CROP,
              options: BodyOptions = BodyOptions(), if_none: str = ERROR,
              on_item: Callable[[int], None] = lambda done: None) -> Maps:
    """Draw the body pose of each (H, W, 3) uint8 picture on a map of its own.

    Args:
        if_none: `error`, or `skip` to leave pictures without a body out of the batch.

    Raises:
        LikenessError: no body to draw in a picture, or in any when skipping.
    """
    def paint(canvas: np.ndarray, picture: np.ndarray, place: Placement) -> Painted:
        drawn, left_out = [], []
        for body in find_bodies(picture)[:options.people]:
            skeleton = from_mediapipe(body.points, body.visibility)
            seen = in_frame(skeleton, picture.shape[1], picture.shape[0], options.least)
            skeleton = Skeleton(place.move(skeleton.points), skeleton.confidence * seen)
            painted = _paint_body(canvas, skeleton, options)
            drawn += painted
            if not painted:
                left_out.append("a body with fewer than two joints that are sure and on the map")
        return drawn, left_out

    return _draw_all(pictures, size, fit, if_none, "body", paint, on_item)


def template_face_map(template_id: str, subject: Subject | None, size: Size,
                      options: FaceOptions = FaceOptions()) -> Maps:
    """Draw the subject's mean face in the pose and framing of a template.

    Raises:
        LikenessError: no subject, an unknown template, or a map too small for the face.
    """
    pose, subject = template(template_id), _need(subject, template_id)
    canvas = _blank(size)
    points = template_face(pose, subject.mesh, *size)
    fault = _fault(points, size, options)
    if fault:
        raise LikenessError(f"The template `{template_id}` gives {fault} at {size[0]} x {size[1]}; "
                            "make the map larger or lower `smallest_face`.")
    draw_face_mesh(canvas, points)
    return _template_result(canvas, template_id, subject, _face_facts(points, pose.head))


def template_body_map(template_id: str, subject: Subject | None, size: Size,
                      options: BodyOptions = BodyOptions()) -> Maps:
    """Draw the body of a template, its eyes and nose those of the subject's mean face.

    Raises:
        LikenessError: no subject, or an unknown template.
    """
    pose, subject = template(template_id), _need(subject, template_id)
    canvas = _blank(size)
    facts, = _paint_body(canvas, template_body(pose, subject.mesh, *size), options)
    return _template_result(canvas, template_id, subject, facts)


def _draw_all(pictures: Sequence[np.ndarray], size: Size, fit: str, if_none: str, what: str,
              paint: Painter, on_item: Callable[[int], None]) -> Maps:
    if if_none not in POLICIES:
        raise LikenessError(f"`if_none` must be one of {', '.join(POLICIES)}, got `{if_none}`.")
    canvases, rows, count = [], [], 0
    for number, picture in enumerate(pictures, start=1):
        canvas = _blank(size)
        place = placement((picture.shape[1], picture.shape[0]), size, fit)
        drawn, left_out = paint(canvas, picture, place)
        if drawn:
            canvases.append(canvas)
            count += len(drawn)
        elif if_none == ERROR:
            why = f"only {'; '.join(left_out)}" if left_out else "none was found"
            raise LikenessError(f"Picture {number} of {len(pictures)} has no {what} to draw "
                                f"({why}); use another picture, size or template, or set "
                                "`if_none` to skip.")
        rows.append({"picture": number, "status": "drawn" if drawn else "skipped", "drawn": drawn,
                     "left_out": left_out})
        on_item(number)
    if not canvases:
        raise LikenessError(f"None of the {len(pictures)} pictures has a {what} to draw; use other "
                            "pictures or a template.")
    report = {"source": "pictures", "width": size[0], "height": size[1], "fit": fit,
              "pictures": rows}
    return Maps(np.stack(canvases), count, report)


def _template_result(canvas: np.ndarray, template_id: str, subject: Subject,
                     facts: dict[str, Any]) -> Maps:
    report = {"source": template_id, "subject": subject.name, "width": canvas.shape[1],
              "height": canvas.shape[0],
              "pictures": [{"picture": 1, "status": "drawn", "drawn": [facts], "left_out": []}]}
    return Maps(canvas[None], 1, report)


def _paint_body(canvas: np.ndarray, skeleton: Skeleton,
                options: BodyOptions) -> list[dict[str, Any]]:
    height, width = canvas.shape[:2]
    # One joint is a dot, not a pose.
    if in_frame(skeleton, width, height, options.least).sum() < 2:
        return []
    draw_body(canvas, skeleton, options.least, xinsir_scale(width, height) if options.xinsir else 1)
    return [openpose_people([skeleton], width, height, options.least)]


def _face_facts(points: np.ndarray, pose: HeadPose) -> dict[str, Any]:
    known = points[~np.isnan(points).any(axis=1), :2]
    box = [*known.min(0), *known.max(0)]
    return {"box": [round(float(value), 1) for value in box], "yaw": round(pose.yaw, 1),
            "pitch": round(pose.pitch, 1), "roll": round(pose.roll, 1)}


def _inside(points: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Blank the landmarks that were guessed outside the picture."""
    height, width = picture.shape[:2]
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= (width, height))).all(axis=1)
    return np.where(inside[:, None], points, np.nan)


def _fault(points: np.ndarray, size: Size, options: FaceOptions) -> str:
    """Why landmarks (N, 3) make no useful face on a map of this size; empty when they do."""
    side = float(np.ptp(points[:, :2], axis=0).min())
    if side < options.smallest:
        return f"a face of {side:.0f} pixels, below `smallest_face` ({options.smallest})"
    share = ((points[:, :2] >= 0) & (points[:, :2] < size)).all(axis=1).mean()
    if share < _LEAST_SHOWN:
        return f"a face of which the map shows {share:.0%}"
    return ""


def _blank(size: Size) -> np.ndarray:
    return np.zeros((size[1], size[0], 3), np.uint8)


def _need(subject: Subject | None, template_id: str) -> Subject:
    if subject is None:
        raise LikenessError(f"The template `{template_id}` draws the subject's own face; connect a "
                            "subject, or choose `from image`.")
    return subject
