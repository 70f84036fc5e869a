"""The verdict on a photo on its own: rules applied to measures, quick and pure."""

from __future__ import annotations

from collections.abc import Mapping

from ..sockets import Face, Reason, Verdict
from .look import Seen
from .rules import Rules

_REJECT, _UNSURE = Verdict.REJECT, Verdict.UNSURE


def judge(seen: Seen, rules: Rules) -> tuple[Reason, ...]:
    """Say what is wrong with a photo on its own; an empty tuple means nothing is."""
    if seen.face is None:
        return (Reason("no_face", "No face can be found; use a photo that shows the face larger, "
                                  "upright and uncovered."),)
    found = (_several(seen.measures, rules), _too_small(seen.measures, rules),
             _outside(seen.measures, rules), _turned(seen.face, rules),
             _exposure(seen.measures, rules), _blurred(seen.measures, rules))
    return tuple(reason for reason in found if reason)


def _several(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    if rules.several_faces == "largest" or measures["second_face"] < rules.second_face:
        return None
    return Reason("several_faces", f"{measures['faces']:.0f} faces, the second "
                  f"{measures['second_face']:.0%} as wide as the largest; crop the photo to one "
                  "person.", Verdict(rules.several_faces))


def _too_small(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    width = measures["face_width"]
    if width >= rules.min_face:
        return None
    return Reason("too_small", f"The face is {width:.0f} pixels wide, {rules.min_face} are asked "
                  "for; come closer or use the original file.",
                  _REJECT if width < 0.75 * rules.min_face else _UNSURE)


def _outside(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    unsure, reject = rules.outside
    if measures["outside"] <= unsure:
        return None
    return Reason("cut_off", f"{measures['outside']:.0%} of the face lies outside the picture; use "
                  "a photo that shows all of it.",
                  _REJECT if measures["outside"] > reject else _UNSURE)


def _turned(face: Face, rules: Rules) -> Reason | None:
    if abs(face.pose.yaw) <= rules.turned:
        return None
    return Reason("turned", f"The head is turned {abs(face.pose.yaw):.0f} degrees aside, so half "
                  "of the face is hidden.", _UNSURE)


def _exposure(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    unsure, reject = rules.highlights
    if measures["highlights"] < unsure:
        much, verdict = (("too", _REJECT) if measures["highlights"] < reject
                         else ("rather", _UNSURE))
        return Reason("dark", f"The face is {much} dark (its brightest parts reach "
                      f"{measures['highlights']:.0f} of 255); use a photo with more light.",
                      verdict)
    unsure, reject = rules.clipped
    if measures["clipped_bright"] > unsure:
        return Reason("bright", f"{measures['clipped_bright']:.0%} of the face is burnt out to "
                      "white; use a photo with softer light.",
                      _REJECT if measures["clipped_bright"] > reject else _UNSURE)
    return None


def _blurred(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    if measures["highlights"] < rules.highlights[1]:
        return None  # darkness takes the contrast that sharpness is measured by
    value = measures["sharpness"]
    if value >= rules.soft_sharpness:
        return None
    word = "blurred" if value < rules.min_sharpness else "soft"
    return Reason("blurred", f"The face is {word} (sharpness {value:.0f}, "
                  f"{rules.soft_sharpness:.0f} is asked for); use a sharper photo.",
                  _REJECT if value < rules.min_sharpness else _UNSURE)
