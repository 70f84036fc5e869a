"""Model folders: ours are there, and nobody else's lists change."""

from __future__ import annotations

import folder_paths
import pytest
from likeness.nodes import models, runtime
from likeness.nodes.errors import LikenessError, MissingModelError


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """The host's registry, empty, with its models folder below a temporary one."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {})
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for name in (models.FACE_ADAPTERS, models.RESTORERS, models.RECOGNISERS):
        (tmp_path / name).mkdir()
    return folder_paths.folder_names_and_paths


def test_a_new_folder_lists_weights_and_nothing_else(registry, tmp_path):
    models.register_folders()
    for name in ("face.safetensors", "face.bin", "readme.txt"):
        (tmp_path / models.FACE_ADAPTERS / name).write_bytes(b"")
    assert models.file_names(models.FACE_ADAPTERS) == ["face.bin", "face.safetensors"]


def test_another_packs_choice_of_extensions_stays(registry, tmp_path):
    registry[models.RECOGNISERS] = (["/elsewhere"], set())
    registry[models.FACE_ADAPTERS] = (["/elsewhere"], {".bin"})
    models.register_folders()
    assert registry[models.RECOGNISERS] == (
        ["/elsewhere", str(tmp_path / models.RECOGNISERS)], set())
    assert registry[models.FACE_ADAPTERS][1] == {".bin"}


def test_registering_twice_adds_nothing(registry):
    models.register_folders()
    before = {name: (list(paths), set(kinds)) for name, (paths, kinds) in registry.items()}
    models.register_folders()
    assert {name: (list(paths), set(kinds)) for name, (paths, kinds) in registry.items()} == before


def test_a_file_that_is_not_listed_is_named_with_its_folder(registry, tmp_path):
    models.register_folders()
    with pytest.raises(MissingModelError, match="`../secret.bin` is not in models/ipadapter"):
        models.full_path(models.FACE_ADAPTERS, "../secret.bin")


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/../../b"])
def test_paths_stay_below_the_hosts_folder(tmp_path, path):
    with pytest.raises(LikenessError, match="lies outside"):
        runtime.contained(tmp_path, path)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_a_text_that_cannot_be_a_path_is_one_sentence(tmp_path, path):
    with pytest.raises(LikenessError, match="cannot be a path"):
        runtime.contained(tmp_path, path)
