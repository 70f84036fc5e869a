"""The node that finds what a new word starts from."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io, ui

from ... import runtime
from ...errors import LikenessError
from ...schema import PhotoSetType, SubjectType, TokenStartType, schema
from ...sockets import PhotoSet, Subject
from ..text.encoders import TextEncoders
from . import known_faces, vision
from .first_values import TokenStart, initial_text, nearest_words, token_start

_VISION, _FACES = "clip vision", "known faces"


class TokenStartNode(io.ComfyNode):
    """First values of a new word from an encoder that has seen the references."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessTokenStart", feature="training", display_name="Likeness Token Start",
            description="Finds what a new word starts from in place of a class word: what CLIP "
                        "vision sees in the reference photos, or the names of known people who "
                        "look alike. Takes a subject and a CLIP, gives the start for Train, whose "
                        "recipe must teach a word (Textual Inversion or Pivotal), and a report.",
            inputs=[
                SubjectType.Input("subject", tooltip="Who is learned. Only reference photos are "
                                                     "looked at, never held-out ones."),
                io.Clip.Input("clip", tooltip="The model's CLIP. For clip vision its file must "
                                              "hold the text projection, which most checkpoints "
                                              "leave out for CLIP-L; a CLIP-L from Load CLIP that "
                                              "has it serves any model with CLIP-L."),
                io.Combo.Input("method", options=[_VISION, _FACES], default=_VISION,
                               tooltip="clip vision seeks the word whose text lies nearest to the "
                                       "photos in CLIP's space. known faces mixes the names of "
                                       "people who look alike, for models that know these "
                                       "people."),
                io.Int.Input("vectors", default=2, min=1, max=32,
                             tooltip="Rows that the word takes; the same number as in the recipe."),
                io.String.Input("initial_word", default="",
                                tooltip="Where clip vision begins, and what encoders keep that it "
                                        "does not fit. Empty: the subject's class noun."),
                io.Int.Input("steps", default=80, min=1, max=1000,
                             tooltip="Steps of clip vision, each one pass of the text encoder. "
                                     "50 to 100 suffice; more leaves the realm of real words."),
                io.ClipVision.Input("clip_vision", optional=True,
                                    tooltip="For clip vision: the tower that belongs to the text "
                                            "encoder, CLIP-ViT-L for clip_l or CLIP-ViT-bigG for "
                                            "SDXL's clip_g."),
                PhotoSetType.Input("known_people", optional=True,
                                   tooltip="For known faces: photos of people whom the model "
                                           "knows, their names as file names, such as `jane doe "
                                           "2.jpg`; through Curate Photos with max_distance 1.5, "
                                           "which otherwise keeps one person alone."),
            ],
            outputs=[
                TokenStartType.Output(display_name="token_start",
                                      tooltip="The word's first rows, for Train's token_start."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: cosines with the photos, or people and their "
                                         "shares; the vocabulary's words nearest to each row."),
            ],
        )

    @classmethod
    def execute(cls, subject: Subject, clip, method: str, vectors: int, initial_word: str = "",
                steps: int = 80, clip_vision: Any = None,
                known_people: PhotoSet | None = None) -> io.NodeOutput:
        if method not in (_VISION, _FACES):
            raise LikenessError(f"`method` must be {_VISION} or {_FACES}, got {method}.")
        text = initial_text(clip, subject.trigger, subject.class_noun, vectors, initial_word)
        if method == _VISION:
            start = _from_vision(text, subject, clip_vision, steps)
        else:
            start = _from_known_faces(text, subject, known_people)
        report = json.dumps(start.how, indent=2)
        return io.NodeOutput(start, report, ui=ui.PreviewText(report))


def _from_vision(text: TextEncoders, subject: Subject, clip_vision: Any, steps: int) -> TokenStart:
    if clip_vision is None:
        raise LikenessError(f"`{_VISION}` looks at the photos; connect CLIP_VISION to "
                            "`clip_vision`.")
    image = vision.image_embedding(clip_vision, subject.references)
    names, reasons = vision.comparable(text, image, subject.class_noun)
    seen = vision.look(text, image, names, steps, runtime.progress_callback(steps))
    return token_start(text.tokens.rows, {
        **_shared(text, subject, _VISION), "steps": steps,
        "cosine": {name: {"before": round(found.before, 4), "after": round(found.after, 4)}
                   for name, found in seen.items()},
        "keep_the_initial_word": {name: f"{name} {why}" for name, why in reasons.items()},
        "nearest_words": _nearest(text, text.tokens.rows)})


def _from_known_faces(text: TextEncoders, subject: Subject,
                      known_people: PhotoSet | None) -> TokenStart:
    if known_people is None:
        raise LikenessError(f"`{_FACES}` compares faces; connect photos of people whom the model "
                            "knows to `known_people`.")
    backend = next(iter(subject.embeddings), "dlib")
    people = known_faces.known_people(known_people)
    weights, alike = known_faces.shares(subject, people, backend)
    rows = known_faces.mix(text, weights)
    return token_start(rows, {
        **_shared(text, subject, _FACES), "recogniser": backend,
        "temperature": known_faces.TEMPERATURE,
        "shares": {name: round(share, 4) for name, share in weights.items()},
        "similarities": {name: round(value, 4) for name, value in sorted(
            alike.items(), key=lambda pair: -pair[1])},
        "nearest_words": _nearest(text, rows)})


def _shared(text: TextEncoders, subject: Subject, method: str) -> dict[str, Any]:
    settings = text.tokens.settings
    return {"subject": subject.name, "method": method, "vectors": settings.vectors,
            "initial_word": settings.initial_word.strip() or subject.class_noun}


def _nearest(text: TextEncoders, rows: Any) -> dict[str, Any]:
    return {encoder.name: nearest_words(text.clip, encoder, rows[encoder.name])
            for encoder in text.tokens.encoders}


NODES: list[type[io.ComfyNode]] = [TokenStartNode]
