"""The model folders that the pack reads, registered beside whatever other packs registered."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from .errors import MissingModelError
from .faces.recognise import backends

FACE_ADAPTERS = "ipadapter"
RESTORERS = "facerestore_models"
RECOGNISERS = backends.INSIGHTFACE

_FOLDERS = (FACE_ADAPTERS, RESTORERS, RECOGNISERS, backends.OPENCV_ZOO)


def register_folders() -> None:
    """Add the pack's model folders to the host.

    Where another pack has registered a folder, its choice of extensions stays: they decide what
    that pack's own combos list.
    """
    for name in _FOLDERS:
        path = str(Path(folder_paths.models_dir) / name)
        known, extensions = folder_paths.folder_names_and_paths.get(name, ([], _extensions()))
        paths = list(known) if path in known else [*known, path]
        folder_paths.folder_names_and_paths[name] = (paths, extensions)
    backends.set_model_roots(recogniser_roots)


def recogniser_roots(registry: str) -> list[Path]:
    """The folders in which a recogniser's files are looked for."""
    return [Path(path) for path in folder_paths.get_folder_paths(registry)]


def file_names(folder: str) -> list[str]:
    """The files a combo may offer from a model folder, whatever else lies there."""
    return [name for name in folder_paths.get_filename_list(folder)
            if Path(name).suffix.lower() in _extensions()]


def _extensions() -> set[str]:
    return folder_paths.supported_pt_extensions | {".onnx"}


def full_path(folder: str, name: str) -> Path:
    """The file behind a combo value.

    Raises:
        MissingModelError: no such file in the folder.
    """
    if name in file_names(folder):  # combo values are untrusted: only listed names become paths
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            return Path(path)
    places = " or ".join(folder_paths.get_folder_paths(folder))
    raise MissingModelError(f"`{name}` is not in models/{folder}; put the file into {places}.")
