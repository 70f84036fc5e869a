"""Headshot poses as key points in centimetres: they carry nobody's picture and fit every size.

The head is the subject's own mesh. The body is an adult's mean joints in the same canonical frame
(medians over portraits, measured with MediaPipe), turned by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..errors import LikenessError
from ..faces import mesh as landmarks
from ..sockets import HeadPose
from .posing import rotation, to_picture, turned
from .skeleton import JOINTS, NECK, Skeleton

TEMPLATES_FILE = Path(__file__).with_name("templates.json")

_NOSE_TIP = 4
# An ear is hidden once its side of the head points this far away from the camera (cosine), an eye
# later because it lies further forward.
_EAR_HIDDEN, _EYE_HIDDEN = -0.3, -0.8


@dataclass(frozen=True)
class Template:
    """One pose of head and body, and how the face is framed."""

    id: str
    head: HeadPose
    body_yaw: float  # degrees, as HeadPose.yaw
    face_height: float  # forehead to chin, share of the frame's height
    centre: tuple[float, float]  # of the face, shares of the frame's width and height


def template(template_id: str) -> Template:
    """Look one template up.

    Raises:
        LikenessError: no template has this id.
    """
    known = templates()
    if template_id not in known:
        raise LikenessError(f"There is no pose template `{template_id}`; choose one of "
                            f"{', '.join(known)}.")
    return known[template_id]


@cache
def templates() -> MappingProxyType[str, Template]:
    """Every template by its id, in the order of the data file."""
    found = [Template(id=entry["id"],
                      head=HeadPose(entry["yaw"], entry["pitch"], entry["roll"]),
                      body_yaw=entry["body_yaw"], face_height=entry["face_height"],
                      centre=tuple(entry["centre"])) for entry in _data()["templates"]]
    return MappingProxyType({entry.id: entry for entry in found})


def template_face(pose: Template, mesh: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pose a person's canonical mesh (478, 3): landmarks (478, 3) in pixels of the map."""
    head = turned(mesh.astype(np.float64), pose.head, _pivot())
    scale, shift = _frame(pose, mesh, head, width, height)
    return to_picture(head) * scale + shift


def template_body(pose: Template, mesh: np.ndarray, width: int, height: int) -> Skeleton:
    """Pose the body that belongs to `template_face`, in pixels of the same map."""
    head = turned(mesh.astype(np.float64), pose.head, _pivot())
    scale, shift = _frame(pose, mesh, head, width, height)
    places = {name: np.array(place, np.float64) for name, place in _data()["joints"].items()}
    torso = HeadPose(pose.body_yaw, 0.0, 0.0)
    points = np.zeros((len(JOINTS), 3))
    confidence = np.zeros(len(JOINTS))
    for number, name in enumerate(JOINTS):
        if name in places:
            turn = pose.head if name.endswith("ear") else torso
            points[number] = turned(places[name][None], turn, _pivot())[0]
            confidence[number] = 1.0
    for name, index in (("nose", _NOSE_TIP), ("right_eye", landmarks.RIGHT_IRIS),
                        ("left_eye", landmarks.LEFT_IRIS)):
        points[JOINTS.index(name)] = head[index]
        confidence[JOINTS.index(name)] = 1.0
    shoulders = [JOINTS.index("right_shoulder"), JOINTS.index("left_shoulder")]
    points[NECK], confidence[NECK] = points[shoulders].mean(0), 1.0
    _hide_far_side(confidence, pose.head)
    return Skeleton((to_picture(points) * scale + shift)[:, :2], confidence)


@cache
def _data() -> dict:
    return json.loads(TEMPLATES_FILE.read_text(encoding="utf-8"))


def _pivot() -> np.ndarray:
    """Where head and neck turn, in the canonical frame."""
    return np.array(_data()["pivot"])


def _frame(pose: Template, mesh: np.ndarray, head: np.ndarray, width: int,
           height: int) -> tuple[float, np.ndarray]:
    """Pixels per centimetre and the shift (3,) that put the face where the template wants it.

    The template's frame lies centred on the map, as large as fits; the map beyond it is used too.
    """
    across, down = _data()["frame"]
    unit = min(width / across, height / down)
    scale = pose.face_height * down * unit / float(np.ptp(mesh[:, 1]))
    place = np.array([width / 2 + (pose.centre[0] - 0.5) * across * unit,
                      height / 2 + (pose.centre[1] - 0.5) * down * unit])
    flat = to_picture(head)
    middle = (flat.min(0) + flat.max(0)) / 2
    shift = np.append(place - middle[:2] * scale, 0.0)
    return scale, shift


def _hide_far_side(confidence: np.ndarray, head: HeadPose) -> None:
    outward = rotation(head)[2, 0]  # how much the person's left side faces the camera
    for side, facing in (("left", outward), ("right", -outward)):
        if facing < _EAR_HIDDEN:
            confidence[JOINTS.index(f"{side}_ear")] = 0.0
        if facing < _EYE_HIDDEN:
            confidence[JOINTS.index(f"{side}_eye")] = 0.0
