"""The verdict on a photo on its own: rules applied to measures, quick and pure."""

from __future__ import annotations

from collections.abc import Mapping

from ..sockets import Face, Reason, Verdict
from .look import Seen
from .near import LARGEST
from .rules import EYES_PER_WIDTH, HELD, HELD_PER_TRUE, Rules

_REJECT, _UNSURE = Verdict.REJECT, Verdict.UNSURE
_FAR_TOO_SMALL = 0.75  # of the pixels asked for: less is rejected
_COVERS = {"covered_eyes": "The eyes seem covered, as by dark glasses; use a photo without.",
           "covered_mouth": "The mouth seems covered, as by a mask or scarf; use a photo without.",
           "covered_hand": "A hand lies before the face; use a photo without."}


def judge(seen: Seen, rules: Rules) -> tuple[Reason, ...]:
    """Say what is wrong with a photo on its own; an empty tuple means nothing is."""
    if seen.face is None:
        return (Reason("no_face", "No face can be found; use a photo that shows the face larger, "
                                  "upright and uncovered."),)
    measures = seen.measures
    dark = measures["highlights"] < rules.highlights[1]
    # Darkness takes the contrast that detail is measured by.
    blurred = None if dark else _blurred(measures, rules)
    detail = blurred or (None if dark else _enlarged(measures, rules))
    found = (_several(measures, rules), _too_small(measures, rules), _outside(measures, rules),
             *_turned(seen.face, rules), _closed(measures, rules),
             *_covered(measures, rules, blurred is not None), _scribbled(measures, rules),
             *_drawn_or_exposure(measures, rules), detail, _compressed(measures, rules))
    return tuple(reason for reason in found if reason)


def _verdict(value: float, limits: tuple[float, float]) -> Verdict | None:
    """Whether a value above the first limit is unsure, or above the second rejected."""
    unsure, reject = limits
    if value <= unsure:
        return None
    return _REJECT if value > reject else _UNSURE


def _several(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    second = measures["second_face"]
    if rules.several_faces in ("largest", "subject") or second < rules.second_face:
        return None
    wide = "wider than that of the person" if second > 1 else f"{second:.0%} as wide"
    return Reason("several_faces", f"{measures['faces']:.0f} faces, another one {wide}; crop the "
                  "photo to one person.", Verdict(rules.several_faces))


def _too_small(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    """Judged as a training picture shows it."""
    scale = 1.0
    if rules.training_size:
        scale = min(rules.training_size / measures["photo_side"], 1.0)
    verdict = _verdict_on_size(_size(measures) * scale, rules)
    width = int(measures["face_width"] * scale)
    where = " at training size" if scale < 1 else ""
    if measures["faces"] > 1 and measures["second_face"] >= rules.second_face:
        return verdict and Reason(
            "too_small", f"{measures['faces']:.0f} faces, none of them large (the one judged is "
            f"{width} pixels wide{where}; {rules.min_face} are asked for); crop the original file "
            "to the one person or choose another photo.", verdict)
    advice = ("crop the photo to the head" if scale < 1
              else "come closer or use the original file")
    return verdict and Reason("too_small", f"The face is {width} pixels wide{where}; "
                              f"{rules.min_face} are asked for; {advice}.", verdict)


def _size(measures: Mapping[str, float]) -> float:
    """The face's width or that which the distance of the eyes speaks of: the pose spoils one or
    the other, and neither makes a face too large.
    """
    return max(measures["face_width"], measures["eyes_apart"] / EYES_PER_WIDTH)


def _verdict_on_size(size: float, rules: Rules) -> Verdict | None:
    if size >= rules.min_face:
        return None
    return _REJECT if size < _FAR_TOO_SMALL * rules.min_face else _UNSURE


def _outside(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    verdict = _verdict(measures["outside"], rules.outside)
    return verdict and Reason("cut_off", f"{measures['outside']:.0%} of the face lies outside the "
                              "picture; use a photo that shows all of it.", verdict)


def _turned(face: Face, rules: Rules) -> list[Reason]:
    found = []
    if abs(face.pose.yaw) > rules.turned:
        found.append(Reason("turned", f"The head is turned {abs(face.pose.yaw):.0f} degrees aside, "
                            "so half of the face is hidden.", _UNSURE))
    if abs(face.pose.pitch) > rules.nodded:
        way = "down" if face.pose.pitch > 0 else "up"
        found.append(Reason("turned", f"The head looks {abs(face.pose.pitch):.0f} degrees {way}, "
                            "which distorts the face.", _UNSURE))
    if abs(face.pose.roll) > rules.tilted:
        found.append(Reason("tilted", f"The head is tilted by {abs(face.pose.roll):.0f} degrees; "
                            "turn the photo upright.", _UNSURE))
    return found


def _closed(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    if measures["eyes_closed"] <= rules.eyes_closed:
        return None
    return Reason("eyes_closed", "Both eyes seem closed; use a photo with open eyes.", _UNSURE)


def _covered(measures: Mapping[str, float], rules: Rules, blurred: bool) -> list[Reason]:
    """One reason for each place that is covered.

    Lips and irises that blur has smeared look like covered ones, so of a blurred face the hands
    alone are asked.
    """
    found = []
    for name, text in _COVERS.items():
        verdict = _verdict(measures[name], rules.occlusion)
        if verdict and (name == "covered_hand" or not blurred):
            found.append(Reason("covered", text, verdict))
    return found


def _scribbled(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    if _drawn(measures, rules):  # a drawing is nothing but lines
        return None
    verdict = _verdict(measures["strokes"], rules.strokes)
    return verdict and Reason("scribbled", f"Lines cross {measures['strokes']:.0%} of the skin, as "
                              "of a pen, of hair or of glasses low on the nose; use a photo "
                              "without.", verdict)


def _drawn_or_exposure(measures: Mapping[str, float], rules: Rules) -> tuple[Reason | None, ...]:
    """A drawing on white looks burnt out, and a photo that is burnt out looks drawn, which only
    hard lines decide.
    """
    drawn = _drawn(measures, rules)
    exposure = _exposure(measures, rules, drawn is not None)
    if drawn is None or (exposure and exposure.rule == "bright" and drawn is _UNSURE):
        return (exposure,)
    return (Reason("drawn", "The face is even areas and hard lines, as in a drawing or a strongly "
                   "filtered photo; use a photograph.", drawn), exposure)


def _drawn(measures: Mapping[str, float], rules: Rules) -> Verdict | None:
    return _verdict(measures["lines"], rules.lines) if measures["even"] > rules.even else None


def _exposure(measures: Mapping[str, float], rules: Rules, drawn: bool) -> Reason | None:
    unsure, reject = rules.highlights
    if measures["highlights"] < unsure:
        much, verdict = (("too", _REJECT) if measures["highlights"] < reject
                         else ("rather", _UNSURE))
        return Reason("dark", f"The face is {much} dark (its brightest parts reach "
                      f"{measures['highlights']:.0f} of 255); use a photo with more light.",
                      verdict)
    verdict = _verdict(measures["clipped_bright"], rules.clipped)
    return verdict and Reason("bright", f"{measures['clipped_bright']:.0%} of the face is burnt "
                              f"out to white{', or it is drawn' if drawn else ''}; use a photo "
                              "with softer light.", verdict)


def _blurred(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    value = measures["sharpness"]
    if value >= rules.soft_sharpness:
        return None
    word = "blurred" if value < rules.min_sharpness else "soft"
    return Reason("blurred", f"The face is {word} (sharpness {value:.0f}, "
                  f"{rules.soft_sharpness:.0f} is asked for); use a sharper photo.",
                  _REJECT if value < rules.min_sharpness else _UNSURE)


def _enlarged(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    """As bad as the factor and the pixels that remain without it both say: an enlarged face that
    has enough of its own is no worse than a small photo of it.
    """
    held = min(_size(measures), LARGEST) / measures["enlargement"]
    on_factor = _verdict(measures["enlargement"], rules.enlargement)
    on_size = _verdict(-held / rules.min_face, (-HELD[0], -HELD[1]))
    if on_factor is None or on_size is None:
        return None
    verdict = _REJECT if on_factor is on_size is _REJECT else _UNSURE
    return Reason("enlarged", f"The photo looks enlarged: about {int(held / HELD_PER_TRUE)} pixels "
                  f"would show the face as well as its {int(measures['face_width'])} do; use the "
                  "original file.", verdict)


def _compressed(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    verdict = _verdict(measures["compression"], rules.compression)
    return verdict and Reason("compressed", "The blocks of strong compression show in the face "
                              f"({measures['compression']:.1f} grey levels); use the original "
                              "file, not one that a messenger sent.", verdict)
