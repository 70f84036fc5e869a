"""A planned photo in words that a person before the camera can follow.

The person's own left is on the right of a picture that is not mirrored; both are said, because
many phones mirror selfies.
"""

from __future__ import annotations

from collections.abc import Mapping

_TO_LEFT = "to your own left (nose towards the right edge of the picture)"
_TO_RIGHT = "to your own right (nose towards the left edge of the picture)"
_NO_FURTHER = "only so far that the camera still sees your far eye whole"
_YAW = {
    "profile_left": f"Nearly a profile: turn your head {_TO_RIGHT}, {_NO_FURTHER}",
    "three_quarter_left": f"Three-quarter view: turn your head half way {_TO_RIGHT}",
    "frontal": "Look straight at the camera",
    "three_quarter_right": f"Three-quarter view: turn your head half way {_TO_LEFT}",
    "profile_right": f"Nearly a profile: turn your head {_TO_LEFT}, {_NO_FURTHER}",
}
_PITCH = {"up": "chin raised", "level": "", "down": "chin lowered"}
_EXPRESSION = {"neutral": "a calm face", "smile": "a soft smile, lips closed",
               "laugh": "a broad smile that shows teeth", "talking": "speaking, mouth open"}
_LIGHT = {"even": "even daylight from the front", "left": "soft window light from your own right",
          "right": "soft window light from your own left", "warm": "warm lamp light"}
_DISTANCE = ("full", "upper_body", "shoulders", "close")  # from far to near
_FRAMED = {"upper_body": "down to the waist", "shoulders": "head and shoulders",
           "close": "the face fills the picture"}
_PLACE = {"first": "", "new": "in a place not used yet", "same": ""}

# By rule of the curation: what to do about the photos it refused.
RESHOOT: Mapping[str, str] = {
    "blurred": "blurred: hold still or rest the camera, wipe the lens, take more light.",
    "dark": "too dark: face a window or a lamp.",
    "bright": "burnt out: step out of the sun or the flash.",
    "too_small": "with too small a face: come closer, alone, or send the original file.",
    "cut_off": "with a face that is cut off: leave room round the head.",
    "turned": "turned too far aside: the far eye should still show.",
    "tilted": "tilted too far: keep the eyes level.",
    "eyes_closed": "with closed eyes: take a few in a row and keep the best.",
    "covered": "with a covered face: no hands, hair, mask or dark glasses before it.",
    "scribbled": "with lines across the face: no pen, no strands of hair, glasses up on the nose.",
    "drawn": "that are drawn or filtered: send photographs as the camera took them.",
    "compressed": "damaged by compression: send originals, not what a messenger sent.",
    "enlarged": "enlarged from small pictures: send the originals.",
    "several_faces": "with other people: stand alone or crop to yourself.",
    "duplicate": "of a shot that is there already: move between two shots.",
    "somebody_else": "of somebody else, or not recognisable: check whose they are.",
    "no_face": "without a face that can be found: show it larger, upright, uncovered.",
    "unreadable": "that cannot be read: export them again as JPEG.",
}


def describe_shot(bins: Mapping[str, str], usual_distance: str | None) -> str:
    """Say how to take a photo, in one sentence.

    Args:
        bins: yaw, pitch, expression, light, distance, place (as `coach.Shot.bins`).
        usual_distance: the distance of most photos so far, if any.
    """
    parts = [_YAW[bins["yaw"]], _PITCH[bins["pitch"]], _EXPRESSION[bins["expression"]],
             _LIGHT[bins["light"]], _framing(bins["distance"], usual_distance),
             _PLACE[bins["place"]]]
    return ", ".join(part for part in parts if part) + "."


def _framing(distance: str, usual: str | None) -> str:
    framed = _FRAMED[distance]
    if usual is None or usual == distance:
        return framed
    steps = _DISTANCE.index(distance) - _DISTANCE.index(usual)
    many = {1: "one step", 2: "two steps", 3: "three steps"}[abs(steps)]
    return f"{many} {'closer' if steps > 0 else 'further away'}: {framed}"
