"""Files that must survive a power loss: told by the order in which the system is asked."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from likeness.nodes import files
from likeness.nodes.errors import LikenessError
from likeness.nodes.tensors import write_tensors


@pytest.fixture
def asked(monkeypatch):
    """What the system is asked to make last, in order; names of folders and of the move."""
    found, sync, move = [], os.fsync, os.replace

    def note_sync(number):
        status = os.fstat(number)
        if stat.S_ISDIR(status.st_mode):
            found.append(next(path.name for path in known if path.exists()
                              and path.stat().st_ino == status.st_ino))
        else:
            found.append(f"file of {status.st_size}")
        sync(number)

    def note_move(source, target):
        found.append("move")
        move(source, target)

    known: list[Path] = []
    monkeypatch.setattr(files.os, "fsync", note_sync)
    monkeypatch.setattr(files.os, "replace", note_move)
    return found, known


def test_a_results_content_lasts_before_its_name_and_its_new_folders_after(tmp_path, asked):
    found, known = asked
    path = tmp_path / "loras" / "people" / "ann"
    known += [path.parent, path.parent.parent, tmp_path]
    files.write_whole(path, lambda partial: partial.write_bytes(b"12345"), durable=True)
    assert found == ["file of 5", "move", "people", "loras", tmp_path.name]
    found.clear()
    files.write_whole(path, lambda partial: partial.write_bytes(b"123"), durable=True)
    assert found == ["file of 3", "move", "people"] and path.read_bytes() == b"123"


def test_what_can_be_made_again_does_not_wait_for_the_disk(tmp_path, asked):
    write_tensors(tmp_path / "latent", {"a": torch.zeros(2)})
    assert asked[0] == ["move"]


def test_content_that_cannot_be_made_to_last_leaves_the_old_file(tmp_path, monkeypatch):
    def no_space(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "ann"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(LikenessError, match="ann could not be written .*No space left"):
        files.write_whole(path, lambda partial: partial.write_bytes(b"new"), durable=True)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_system_that_cannot_open_folders_still_writes(tmp_path, monkeypatch):
    def refuse(*given):
        raise PermissionError(errno.EACCES, "a folder")

    monkeypatch.setattr(files.os, "open", refuse)
    files.write_whole(tmp_path / "ann", lambda partial: partial.write_bytes(b"new"), durable=True)
    assert (tmp_path / "ann").read_bytes() == b"new"
