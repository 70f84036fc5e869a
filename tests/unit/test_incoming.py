"""An empty batch is named by every node that takes pictures, before anything else goes wrong."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from comfy_api.latest import io
from likeness.nodes.control.nodes import NODES as CONTROL
from likeness.nodes.dataset.nodes import NODES as DATASET
from likeness.nodes.errors import LikenessError
from likeness.nodes.identity.nodes import NODES as IDENTITY
from likeness.nodes.incoming import is_finite_text, require_latent, require_text
from likeness.nodes.restore.nodes import NODES as RESTORE
from likeness.nodes.restore.registry import NONE
from likeness.nodes.scoring.nodes import NODES as SCORING
from likeness.nodes.style.nodes import NODES as STYLE
from likeness.nodes.training.nodes import NODES as TRAINING

ALL = {kind.__name__: kind for kind in (*CONTROL, *DATASET, *IDENTITY, *RESTORE, *SCORING, *STYLE,
                                        *TRAINING)}
_MAP = ("from image", 64, 64, "pad")
ONE = SimpleNamespace(name="me", subject="me")
# What each is given beside the pictures.
GIVEN = {
    "LikenessRestoreFaces": lambda no: (no, NONE, 0.8, True, 0.0, "all", "keep the picture", 0.7,
                                        "dlib"),
    "LikenessScore": lambda no: (no, None, "dlib", "largest", 40.0, ""),
    "LikenessPick": lambda no: (no, None, 1, "keep", 0.0, 0.0, "reject", 1.0, "off", 0, "error",
                                "dlib"),
    "LikenessReportNode": lambda no: (ONE, ONE, "title", no),
    "LikenessFaceMeshMap": lambda no: (*_MAP, 1, 64, "error", no),
    "LikenessPoseMap": lambda no: (*_MAP, 1, 0.5, "openpose", "error", no),
    "LikenessControlStack": lambda no: (None, no, "auto", 1.0, 0.0, 1.0),
    "LikenessSweepCell": lambda no: (no, None, 0),
}
ELSEWHERE = {"ClassPhotosNode"}  # needs models: with the tests of class photos


def _takes_pictures(kind) -> bool:
    return any(isinstance(taken, io.Image.Input) for taken in kind.define_schema().inputs)


def test_the_table_has_every_node_that_takes_pictures():
    assert {name for name, kind in ALL.items() if _takes_pictures(kind)} == {*GIVEN, *ELSEWHERE}


@pytest.mark.parametrize("name", GIVEN)
def test_an_empty_batch_is_named(name):
    with pytest.raises(LikenessError, match="`images?` is a batch of 0 pictures"):
        ALL[name].execute(*GIVEN[name](torch.zeros(0, 8, 8, 3)))


def test_numbers_pass_and_what_is_none_is_named_with_its_source():
    latent = torch.zeros(4, 2, 2)
    assert require_latent(latent, "a.jpg") is latent
    latent[1, 0, 0] = torch.nan
    with pytest.raises(LikenessError, match="The VAE gives NaN .* a.jpg"):
        require_latent(latent, "a.jpg")
    pooled = [[torch.ones(1, 2, 4), {"pooled_output": torch.full((1, 4), torch.inf)}]]
    with pytest.raises(LikenessError, match="The text encoder gives NaN .*photo of me"):
        require_text(pooled, "photo of me")
    assert is_finite_text([[torch.ones(1, 2, 4), {"pooled_output": None, "size": 3}]])
