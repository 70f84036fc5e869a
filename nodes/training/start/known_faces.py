"""A new word that starts as a mixture of the names of people who look alike.

A face as a mixture of known people's words is the idea of Celeb Basis (arXiv 2306.00926); here the
face recogniser says who takes part, and nothing is learned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...errors import LikenessError
from ...faces.recognise.embed import centre, embed_photo, similarity, subject_embeddings
from ...sockets import Photo, PhotoSet, Subject
from ..text.encoders import TextEncoders
from ..text.host_clip import Encoder, word_ids
from ..text.tokens import spread

TEMPERATURE = 0.05  # of the recogniser's similarity, in which a person's own photos differ by 0.1
TOP = 5  # people who take part at most

_NUMBER = re.compile(r"[\s\d()]+$")


def known_people(photos: PhotoSet) -> dict[str, list[Photo]]:
    """Photos by the person's name: the file's, without a number at its end.

    Raises:
        LikenessError: no photo was kept, a file has no name, or fewer than two people.
    """
    found: dict[str, list[Photo]] = {}
    for photo in photos.kept:
        stem = photo.file.stem.replace("_", " ").replace("-", " ")
        name = " ".join(_NUMBER.sub("", stem).split()).lower()
        if not name:
            raise LikenessError(f"`{photo.name}` is not named after a person; rename the file to "
                                "the name that the model knows.")
        found.setdefault(name, []).append(photo)
    if len(found) < 2:
        raise LikenessError(f"`known_people` holds {len(found)} people in photos that were kept; "
                            "give at least two, with their names as file names, through Curate "
                            "Photos with `max_distance` 1.5, below which it keeps one person.")
    return found


def shares(subject: Subject, people: Mapping[str, Sequence[Photo]],
           backend: str) -> tuple[dict[str, float], dict[str, float]]:
    """How much each known person takes part, and the recogniser's similarities behind it.

    Only reference photos of the subject are asked.
    """
    references = subject_embeddings(subject, backend)[:len(subject.references)]
    person = centre(references, backend)
    alike = {name: similarity(person, centre([embed_photo(photo, backend) for photo in photos],
                                             backend), backend)
             for name, photos in people.items()}
    return weigh(alike), alike


def weigh(similarities: Mapping[str, float]) -> dict[str, float]:
    """softmax(similarity / TEMPERATURE) over the TOP most similar names, most similar first."""
    best = sorted(similarities, key=lambda name: -similarities[name])[:TOP]
    values = np.array([similarities[name] for name in best]) / TEMPERATURE
    raised = np.exp(values - values.max())
    return dict(zip(best, (raised / raised.sum()).tolist(), strict=True))


def mix(text: TextEncoders, weights: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """Rows (vectors, width) by encoder name that mean a weighted mixture of names.

    Raises:
        LikenessError: an encoder does not know a name.
    """
    return {encoder.name: _mixed(text, encoder, weights) for encoder in text.tokens.encoders}


def _mixed(text: TextEncoders, encoder: Encoder, weights: Mapping[str, float]) -> torch.Tensor:
    vectors = text.tokens.settings.vectors
    with torch.no_grad():
        names = torch.stack([spread(_name_rows(text.clip, encoder, name), vectors)
                             for name in weights])
        share = torch.tensor(list(weights.values()), device=names.device)[:, None, None]
        return (share * names).sum(dim=0)


def _name_rows(clip: Any, encoder: Encoder, name: str) -> torch.Tensor:
    try:
        return encoder.rows(word_ids(clip, encoder, name))
    except LikenessError as err:
        raise LikenessError(f"The text encoder {encoder.name} cannot read the name `{name}`; "
                            "rename that photo or leave it out.") from err
