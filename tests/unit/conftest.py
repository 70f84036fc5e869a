"""People that several features' tests need, made from the committed photos."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.mesh import subject_mesh
from likeness.nodes.faces.recognise.backends import BOTH, parts_of
from likeness.nodes.faces.recognise.embed import embed_photo, leave_one_out, split_parts
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo, Subject
from PIL import Image, ImageEnhance

sys.path.append(str(Path(__file__).resolve().parent))  # for the helper beside the tests


def _photo(file: Path) -> Photo:
    pixels = read_photo(file)
    return Photo(file, file.name, width=pixels.shape[1], height=pixels.shape[0],
                 face=find_face(pixels))


@pytest.fixture(scope="session")
def obama(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A subject of four variants of one portrait, the last one held out."""
    folder = tmp_path_factory.mktemp("obama")
    portrait = Image.open(assets / "obama.jpg").convert("RGB")
    small = portrait.resize((portrait.width // 2, portrait.height // 2))
    variants = (portrait, ImageEnhance.Brightness(portrait).enhance(1.4),
                portrait.rotate(12, Image.Resampling.BICUBIC, expand=True), small)
    photos = []
    for number, variant in enumerate(variants):
        variant.save(folder / f"{number}.png")
        photos.append(_photo(folder / f"{number}.png"))
    rows = np.stack([embed_photo(photo, BOTH) for photo in photos])
    embeddings = dict(zip(parts_of(BOTH), split_parts(rows, BOTH), strict=True))
    spreads = {id: leave_one_out(own, id) for id, own in {**embeddings, BOTH: rows}.items()}
    return Subject("Obama", "ohwx", "man", tuple(photos[:3]), tuple(photos[3:]),
                   embeddings, spreads,
                   subject_mesh([photo.face for photo in photos]))
