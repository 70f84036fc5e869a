"""Embedding files in prompts as part of what a sweep's pictures are told by."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import folder_paths
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.scoring.score.score import yardstick
from likeness.nodes.scoring.sweep import nodes as sweep_nodes
from likeness.nodes.scoring.sweep.figures import Judge
from likeness.nodes.scoring.sweep.sweep import Column, make_grid
from likeness.nodes.scoring.sweep.words import folders_of, words_digest


@pytest.fixture
def words(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "ada.safetensors").write_bytes(b"one")
    (tmp_path / "deep" / "joe.pt").write_bytes(b"two")
    return tmp_path


@pytest.mark.parametrize("prompt", ["photo of embedding:ada", "(embedding:ada:1.2) smiling",
                                    "embedding:ada, a man", "a embedding:ada.safetensors b"])
def test_a_called_embedding_tells_a_prompt_by_its_content(words, prompt):
    before = words_digest(prompt, [words])
    (words / "ada.safetensors").write_bytes(b"other")
    assert before and words_digest(prompt, [words]) not in ("", before)


def test_a_prompt_is_not_told_by_embeddings_that_it_does_not_call(words):
    assert words_digest("photo of ada", [words]) == words_digest("embedding:eve", [words]) == ""
    assert words_digest("embedding:joe", [words]) == words_digest("embedding:deep/joe", [words])
    before = words_digest("embedding:joe", [words])
    (words / "ada.safetensors").write_bytes(b"other")
    assert words_digest("embedding:joe", [words]) == before


def test_another_embedding_is_another_cell_of_that_prompt_alone(words, obama):
    def cells():
        grid = make_grid([Column("1", 1.0, "s1")], ("a", "embedding:ada b"), "ohwx", obama, 0, 1,
                         9, True, lambda prompt: words_digest(prompt, [words]))
        return [cell.name for cell in grid.cells]

    before = cells()
    (words / "ada.safetensors").write_bytes(b"other")
    after = cells()
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_folders_of_a_text_encoder_count_too(words):
    tokenizer = SimpleNamespace(clip_l=SimpleNamespace(embedding_directory=[str(words)]),
                                clip_g=SimpleNamespace(embedding_directory=str(words / "deep")))
    assert folders_of(SimpleNamespace(tokenizer=tokenizer)) == {words, words / "deep"}


def test_an_embedding_that_changes_makes_the_sweep_run_again(words, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda kind: [str(words)])
    before = sweep_nodes.LikenessSweep.fingerprint_inputs(lora="none")
    os.utime(words / "deep" / "joe.pt", ns=(1, 1))
    assert sweep_nodes.LikenessSweep.fingerprint_inputs(lora="none") != before


def test_a_judge_is_told_by_which_photos_were_held_out(obama):
    other = replace(obama, references=obama.photos[:2], held_out=obama.photos[2:])
    keys = [Judge(yardstick(each, "dlib")).key for each in (obama, other, obama)]
    assert keys[0] == keys[2] != keys[1]


def test_towers_that_cannot_judge_are_refused_before_a_picture_is_made(obama):
    grid = make_grid([Column("1", 1.0, "s1")], ("photo of {subject}",), "ohwx", obama, 0, 1, 9,
                     True)
    blind = SimpleNamespace(vision=SimpleNamespace(encode_image=lambda _: {"image_embeds": None}),
                            text=None)
    with pytest.raises(LikenessError, match="no projected embedding"):
        sweep_nodes._check(blind, grid, obama)
