"""What is known of a photo as JSON and back, exactly: verdict, face, measures, embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ...sockets import Face, HeadPose, Photo, Reason, Verdict


def to_entry(photo: Photo) -> dict[str, Any]:
    """A photo without its file and mask, which have other places in a saved set."""
    return {
        "name": photo.name,
        "sha256": photo.sha256,
        "size": [photo.width, photo.height],
        "verdict": photo.verdict.value if photo.verdict else None,
        "overridden": photo.overridden,
        "reasons": [{"rule": reason.rule, "text": reason.text, "verdict": reason.verdict.value}
                    for reason in photo.reasons],
        "caption": photo.caption,
        "measures": {name: float(value) for name, value in photo.measures.items()},
        "face": _face_entry(photo.face) if photo.face else None,
        "embedding": _listed(photo.embedding),
        "scene": _listed(photo.scene),
    }


def from_entry(entry: Mapping[str, Any], file: Path, mask: Path | None) -> Photo:
    """The photo of an entry.

    Raises:
        KeyError, TypeError, ValueError: the entry has another form.
    """
    width, height = (int(side) for side in entry["size"])
    return Photo(
        file=file, name=str(entry["name"]), sha256=str(entry["sha256"]), width=width,
        height=height, verdict=Verdict(entry["verdict"]) if entry["verdict"] else None,
        reasons=tuple(Reason(str(reason["rule"]), str(reason["text"]), Verdict(reason["verdict"]))
                      for reason in entry["reasons"]),
        face=_face(entry["face"]) if entry["face"] else None,
        measures=MappingProxyType({name: float(value)
                                   for name, value in entry["measures"].items()}),
        embedding=_array(entry["embedding"]), scene=_array(entry["scene"]),
        overridden=bool(entry["overridden"]), caption=str(entry["caption"]), mask=mask)


def _face_entry(face: Face) -> dict[str, Any]:
    return {
        "box": [float(edge) for edge in face.box],
        "pose": {"yaw": float(face.pose.yaw), "pitch": float(face.pose.pitch),
                 "roll": float(face.pose.roll)},
        "expression": {name: float(value) for name, value in face.expression.items()},
        "landmarks": _listed(face.landmarks),
        "mesh": _listed(face.mesh),
    }


def _face(entry: Mapping[str, Any]) -> Face:
    x0, y0, x1, y1 = (float(edge) for edge in entry["box"])
    pose = HeadPose(*(float(entry["pose"][name]) for name in ("yaw", "pitch", "roll")))
    landmarks, mesh = _array(entry["landmarks"]), _array(entry["mesh"])
    if landmarks.shape != mesh.shape or landmarks.shape[1:] != (3,):
        raise ValueError(f"landmarks of shape {landmarks.shape} and mesh of {mesh.shape}")
    expression = {name: float(value) for name, value in entry["expression"].items()}
    return Face((x0, y0, x1, y1), landmarks, mesh, pose, MappingProxyType(expression))


def _listed(array: np.ndarray | None) -> dict[str, Any] | None:
    """Values with the fewest digits that give the same bits again."""
    if array is None:
        return None
    array = np.asarray(array)
    flat = [float(str(value)) for value in array.ravel()]
    return {"type": str(array.dtype), "shape": list(array.shape), "values": flat}


def _array(entry: Mapping[str, Any] | None) -> np.ndarray | None:
    if entry is None:
        return None
    kind = np.dtype(entry["type"])
    if kind.kind not in "fiub":
        raise ValueError(f"numbers of type {kind}")
    array = np.array(entry["values"], dtype=kind).reshape(entry["shape"])
    array.setflags(write=False)
    return array
