"""One injection from the subject's photos to the patched MODEL and its report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..errors import LikenessError
from ..faces.recognise import backends
from ..faces.recognise.embed import subject_embeddings
from ..sockets import Subject
from .adapter import Kind
from .blend import Combine, FaceTokens, PlusVersion, check_embeddings, face_tokens
from .inject import Injection, inject, matching_layers
from .pictures import clip_pictures
from .recogniser import AUTO, FaceAdapter
from .weighting import Weighting, photo_weights

_WEIGHTS_LICENCE = ("Published IP-Adapter FaceID weights are for non-commercial research; an "
                    "adapter of your own is yours.")


@dataclass(frozen=True)
class InjectionSettings:
    """How strongly, when and from which mixture of references a face is injected."""

    weight: float = 0.8
    start: float = 0.0  # share of sampling
    end: float = 1.0
    lora_strength: float = 0.6
    combine: str = AUTO  # or a value of Combine
    plus_strength: float = 1.0  # FaceID Plus version 2: share of the picture features
    weighting: str = Weighting.EQUAL.value  # or another value of Weighting

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise LikenessError(f"`weight` must not be negative, got {self.weight:g}.")
        if not 0.0 <= self.start < self.end <= 1.0:
            raise LikenessError(f"`start` must lie below `end` and both between 0 and 1, "
                                f"got {self.start:g} and {self.end:g}.")
        self._check("combine", [AUTO, *(how.value for how in Combine)])
        self._check("weighting", [how.value for how in Weighting])

    def _check(self, name: str, known: list[str]) -> None:
        if getattr(self, name) not in known:
            raise LikenessError(f"`{name}` must be one of {', '.join(known)}, "
                                f"got {getattr(self, name)}.")


def apply_face(model: Any, adapter: FaceAdapter, subject: Subject, settings: InjectionSettings,
               clip_vision: Any = None) -> tuple[Any, dict[str, Any]]:
    """Inject a subject's face into a MODEL: the patched clone and a report for JSON.

    Only reference photos are read; held-out photos stay unseen, so that they can judge. Weight 0
    switches everything off, the LoRA included, and gives the MODEL itself back.

    Raises:
        LikenessError: adapter, model, subject and recogniser do not fit together.
        MissingModelError: the recogniser's files are absent.
    """
    how = _combine(settings, adapter)
    if settings.weight == 0:
        matching_layers(model, adapter.weights, adapter.name)
        done = Injection(model, layers=0, lora_weights=0, chained=0)
        return model, _report(adapter, subject, settings, how, done, tokens=0)
    tokens = subject_tokens(adapter, subject, settings, clip_vision)
    done = inject(model, adapter.weights, adapter.name, tokens, weight=settings.weight,
                  start=settings.start, end=settings.end, lora_strength=settings.lora_strength)
    count = tokens.face.shape[1]
    return done.model, _report(adapter, subject, settings, how, done, tokens=count)


def subject_tokens(adapter: FaceAdapter, subject: Subject, settings: InjectionSettings,
                   clip_vision: Any = None) -> FaceTokens:
    """Make the face tokens of a subject's reference photos."""
    weights, photos = adapter.weights, subject.references
    if weights.kind is Kind.PLUS and clip_vision is None:
        raise LikenessError(f"`{adapter.name}` is a FaceID Plus file; connect the CLIP_VISION "
                            "model it was trained with (CLIP-ViT-H-14) to `clip_vision`.")
    if not photos:
        raise LikenessError(f"{subject.name} has no reference photos to inject; keep at least one.")
    # A recogniser the subject was not embedded with runs on the references alone.
    embeddings = subject_embeddings(replace(subject, held_out=()), adapter.recogniser)
    embeddings = embeddings[:len(photos)]
    check_embeddings(embeddings, [photo.name for photo in photos], weights.id_width)
    pictures = clip_pictures(clip_vision, weights, photos) if weights.kind is Kind.PLUS else None
    share = photo_weights(photos, Weighting(settings.weighting))
    return face_tokens(weights, torch.from_numpy(embeddings.copy()), _combine(settings, adapter),
                       normed=adapter.normed, weights=torch.from_numpy(share), pictures=pictures,
                       plus=PlusVersion(adapter.shortcut, settings.plus_strength))


def describe(adapter: FaceAdapter) -> dict[str, Any]:
    """Tell what a face adapter file is and how it will be fed, for JSON."""
    weights, recogniser = adapter.weights, backends.backend(adapter.recogniser)
    report: dict[str, Any] = {
        "file": adapter.name, "kind": weights.kind.value, "family": weights.family,
        "tokens": weights.tokens, "layers": len(weights.pairs),
        "lora_layers": len(weights.lora),
        "recogniser": {"id": recogniser.id, "title": recogniser.title,
                       "embedding": "normed" if adapter.normed else "raw",
                       "licence": recogniser.licence, "commercial": recogniser.commercial}}
    if weights.kind is Kind.PLUS:
        report["plus_version"] = 2 if adapter.shortcut else 1
    return {**report, "licence": weights.metadata.get("licence", _WEIGHTS_LICENCE)}


def _combine(settings: InjectionSettings, adapter: FaceAdapter) -> Combine:
    if settings.combine != AUTO:
        return Combine(settings.combine)
    # Portrait adapters were trained on five faces side by side.
    return Combine.CONCAT if adapter.weights.kind is Kind.PORTRAIT else Combine.MEAN


def _report(adapter: FaceAdapter, subject: Subject, settings: InjectionSettings, how: Combine,
            done: Injection, *, tokens: int) -> dict[str, Any]:
    return {"subject": subject.name, "active": settings.weight != 0,
            "references": [photo.name for photo in subject.references],
            "settings": {**asdict(settings), "combine": how.value}, "face_tokens": tokens,
            "layers_patched": done.layers, "layers_chained": done.chained,
            "lora_weights_patched": done.lora_weights, "adapter": describe(adapter)}
