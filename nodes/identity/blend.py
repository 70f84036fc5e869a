"""How several reference photos become one set of face tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch

from ..errors import LikenessError
from .adapter import AdapterWeights, Kind
from .projection import project, resample


class Combine(str, Enum):
    """How references are joined."""

    MEAN = "mean"  # one average face, in which longer embeddings (clearer faces) count more
    NORM_AVERAGE = "norm-average"  # one average face of embeddings scaled to length 1
    CONCAT = "concat"  # each photo keeps its own tokens


@dataclass(frozen=True, eq=False)
class Pictures:
    """CLIP hidden states that FaceID Plus looks at."""

    references: torch.Tensor  # (N, L, H), one per reference photo
    blank: torch.Tensor  # (1, L, H) of a blank picture, for the rows without the person


@dataclass(frozen=True)
class PlusVersion:
    """How FaceID Plus mixes embedding tokens and picture tokens."""

    shortcut: bool  # version 2: embedding tokens + scale * picture tokens; version 1: the latter
    scale: float = 1.0  # version 2 only


@dataclass(frozen=True, eq=False)
class FaceTokens:
    """What cross-attention reads: tokens of the person and of nobody, (1, T, C) each."""

    face: torch.Tensor
    nobody: torch.Tensor


def check_embeddings(embeddings: np.ndarray, names: Sequence[str], width: int) -> None:
    """Raise unless there is one usable embedding (N, D) of the right width per reference.

    Raises:
        LikenessError: no references, another width, or an embedding without direction.
    """
    if not names:
        raise LikenessError("The subject has no reference photos to inject; keep at least one.")
    if embeddings.shape != (len(names), width):
        raise LikenessError(f"The adapter reads face embeddings of width {width}, the recogniser "
                            f"gives {embeddings.shape[-1]}; choose the recogniser that the "
                            "adapter was trained with.")
    norms = np.linalg.norm(embeddings, axis=1)
    for name, norm in zip(names, norms, strict=True):
        if not np.isfinite(norm) or norm == 0.0:
            raise LikenessError(f"The face embedding of {name} is empty; remove that photo.")


def combine(embeddings: torch.Tensor, how: Combine, *, normed: bool,
            weights: torch.Tensor | None = None) -> torch.Tensor:
    """Join face embeddings (N, D) into (M, D): M is N for `concat`, else 1.

    Args:
        normed: the adapter was trained on embeddings of length 1, so give it such.
        weights: (N,) how much each photo counts in an average; None: all the same.
    """
    share = torch.ones(len(embeddings)) if weights is None else weights.float()
    share = (share / share.sum())[:, None]
    if how is Combine.NORM_AVERAGE:
        embeddings = embeddings / embeddings.norm(dim=1, keepdim=True)
    if how is not Combine.CONCAT:
        embeddings = (share * embeddings).sum(dim=0, keepdim=True)
    return embeddings / embeddings.norm(dim=1, keepdim=True) if normed else embeddings


def face_tokens(adapter: AdapterWeights, embeddings: torch.Tensor, how: Combine, *, normed: bool,
                weights: torch.Tensor | None = None, pictures: Pictures | None = None,
                plus: PlusVersion | None = None) -> FaceTokens:
    """Make the tokens of the person and of nobody from reference embeddings (N, D).

    Nobody is the projection of a zero embedding, which is what the adapter saw in training where
    the face was dropped; it is not a zero token.
    """
    faces = project(adapter.projection, combine(embeddings, how, normed=normed, weights=weights))
    nobody = project(adapter.projection, torch.zeros(1, adapter.id_width))
    if adapter.kind is Kind.PLUS:
        look = _plus_tokens(adapter, plus)
        each = look(faces.expand(len(embeddings), -1, -1), pictures.references)
        if how is not Combine.CONCAT:
            share = torch.ones(len(each)) if weights is None else weights.float()
            each = (each * (share / share.sum())[:, None, None]).sum(dim=0, keepdim=True)
        faces, nobody = each, look(nobody, pictures.blank)
    # Attention over equal tokens repeated is attention over one set, so that rows batch together.
    return FaceTokens(faces.reshape(1, -1, adapter.context), nobody.repeat(1, len(faces), 1))


def _plus_tokens(adapter: AdapterWeights, plus: PlusVersion) -> Callable[..., torch.Tensor]:
    def look(tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        seen = resample(adapter.projection, tokens, features)
        return tokens + plus.scale * seen if plus.shortcut else seen

    return look
