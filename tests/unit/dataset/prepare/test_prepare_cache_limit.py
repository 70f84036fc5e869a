"""The cache stays within its size, and never at the expense of what is in use."""

from __future__ import annotations

import os

import pytest
from likeness.nodes.cache_limit import limit_cache


@pytest.fixture
def folder(tmp_path):
    """Four cached files of 100 bytes, the first one the oldest, and a file of somebody else."""
    for age, name in enumerate(("a.latent", "b.text", "c.latent", "d.text")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / "notes.txt").write_bytes(b"x" * 1000)
    return tmp_path


def _names(folder):
    return sorted(path.name[0] for path in folder.iterdir())


def test_the_longest_unused_files_go_first_until_the_limit_is_met(folder):
    use = limit_cache(folder, [], 250)
    assert _names(folder) == ["c", "d", "n"]
    assert (use.files, use.bytes, use.removed) == (2, 200, 2)


def test_nothing_goes_while_the_limit_is_not_reached(folder):
    assert limit_cache(folder, [], 400).removed == 0


def test_files_in_use_stay_even_when_they_alone_are_too_much(folder):
    used = [folder / "a.latent.safetensors", folder / "b.text.safetensors"]
    use = limit_cache(folder, used, 0)
    assert _names(folder) == ["a", "b", "n"] and use.bytes == 200


def test_a_file_used_again_is_not_the_oldest_any_more(folder):
    limit_cache(folder, [folder / "a.latent.safetensors"], 10_000)
    limit_cache(folder, [], 100)
    assert _names(folder) == ["a", "n"]


def test_a_file_left_by_a_crash_goes_too(folder):
    (folder / "e.latent.safetensors.77.part").write_bytes(b"x" * 100)
    limit_cache(folder, [], 0)
    assert _names(folder) == ["n"]


def test_a_file_that_cannot_be_deleted_is_left_and_told(folder, monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    use = limit_cache(folder, [], 0)
    assert use.files == 4 and use.removed == 0 and "could not be deleted" in caplog.text
