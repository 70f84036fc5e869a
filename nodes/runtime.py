"""The one facade over ComfyUI: folders, devices, loading, progress, cancel and messages."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from PIL import Image
from safetensors import SafetensorError

from .errors import LikenessError
from .files import on_disk

logger = logging.getLogger("likeness")

# 0.3.75 raises it as an Exception: code with a broad `except` re-raises it first.
Interrupted = comfy.model_management.InterruptProcessingException
OutOfMemory = comfy.model_management.OOM_EXCEPTION


def input_directory() -> Path:
    """The host's input folder."""
    return Path(folder_paths.get_input_directory()).resolve()


def output_directory() -> Path:
    """The host's output folder."""
    return Path(folder_paths.get_output_directory()).resolve()


def temp_directory() -> Path:
    """The host's folder of what lasts until it stops."""
    return Path(folder_paths.get_temp_directory()).resolve()


def models_directory() -> Path:
    """The host's models folder."""
    return Path(folder_paths.models_dir).resolve()


def contained(base: Path, relative: str) -> Path:
    """A user's path below a host folder; as in the host itself, links in it may lead elsewhere.

    Raises:
        LikenessError: the path leaves the folder (absolute paths, `..`), or a link in it leads to
            what is not there.
    """
    try:
        path = on_disk(Path(os.path.abspath(base / relative)))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, ValueError) as err:  # too long a name, or a NUL character
        raise LikenessError(f"`{relative[:80]}` cannot be a path; give one inside {base}.") from err
    if not is_inside(path, [base]):
        raise LikenessError(f"`{relative}` lies outside {base}; give a path inside that folder.")
    broken = next((place for place in (path, *path.parents)
                   if place.is_symlink() and not place.exists()), None)
    if broken is not None:
        raise LikenessError(f"`{relative}` leads through the link {broken} to "
                            f"{os.readlink(broken)}, which is not there; connect that disk or "
                            "mend the link.")
    return path


def is_inside(path: Path, roots: Iterable[Path]) -> bool:
    """Whether a path lies in one of the host's folders, as it is written or where it leads."""
    places = {place for form in (os.path.abspath(path), path.resolve())
              for place in (Path(form), *Path(form).parents)}
    return any(Path(os.path.abspath(root)) in places or root.resolve() in places
               for root in roots)


def throw_if_cancelled() -> None:
    """Raise the host's interrupt when the user pressed cancel; call once per step or photo."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """The running node's progress bar; also checks for cancel at every update."""

    def __init__(self, total: int) -> None:
        self._bar = comfy.utils.ProgressBar(total)

    def update(self, done: int, preview: Image.Image | None = None) -> None:
        """Show `done` of the total, with an optional preview picture."""
        throw_if_cancelled()
        picture = ("JPEG", preview, 512) if preview is not None else None
        self._bar.update_absolute(done, preview=picture)


def progress_callback(total: int) -> Callable[[int], None]:
    """A plain `on_item(done)` for logic that must not know ComfyUI."""
    return Progress(total).update


def show_text(text: str) -> None:
    """Show a line on the running node in the browser."""
    node, server = running_node(), _server()
    if node and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node)


def running_node() -> str:
    """The id of the node that runs now; empty outside a prompt."""
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    return "" if context is None else context.node_id


def _server() -> Any:
    """The host's server; None where nodes run without one."""
    # Only looked up: importing it would start a server's setup.
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def send_event(name: str, data: dict[str, Any]) -> None:
    """Send a `likeness.*` websocket event with the running node's id as `node`.

    Whatever it says is also in a file or on a socket.
    """
    server = _server()
    if server is not None:
        server.send_sync(f"likeness.{name}", {"node": running_node(), **data})


def torch_device() -> torch.device:
    """Where the host computes."""
    return comfy.model_management.get_torch_device()


def intermediate_device() -> torch.device:
    """Where results between nodes live."""
    return comfy.model_management.intermediate_device()


def wrap_module(module: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    """Put an auxiliary network under the host's memory management."""
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(module, load_device=torch_device(),
                   offload_device=comfy.model_management.unet_offload_device())


def load_models(patchers: Iterable[Any], memory_required: int = 0, whole: bool = False) -> None:
    """Bring models to the compute device, evicting others as the host sees fit.

    Args:
        patchers: what `wrap_module` or a loader node gave.
        memory_required: bytes that the computation itself will need.
        whole: load every weight; for networks of plain torch layers, which the host cannot stream.
    """
    comfy.model_management.load_models_gpu(list(patchers), memory_required=memory_required,
                                           force_full_load=whole)


def unload(patcher: Any) -> None:
    """Take a model, whichever of its clones is loaded, off the compute device; others stay."""
    loaded = comfy.model_management.current_loaded_models
    for entry in [entry for entry in loaded
                  if entry.model is not None and entry.model.is_clone(patcher)]:
        entry.model_unload()
        loaded.remove(entry)
    comfy.model_management.soft_empty_cache()


def make_room(size: int, device: torch.device, leave: Iterable[Any] = ()) -> None:
    """Evict models until as many bytes are free on a compute device; on the CPU none has to go.

    Args:
        leave: patchers that stay loaded.
    """
    if device.type == "cpu":
        return
    kept = list(leave)
    loaded = [entry for entry in comfy.model_management.current_loaded_models
              if any(entry.model is patcher for patcher in kept)]
    comfy.model_management.free_memory(size, device, keep_loaded=loaded)


def forget_peak(device: torch.device) -> None:
    """Begin a new measurement of the most memory that is held on a card."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most memory held on a card since `forget_peak`; None where nobody counts it."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def training_clone(model: Any) -> Any:
    """A clone of a MODEL whose weights training may read at leisure.

    Hosts since 0.16 stream the weights of some MODELs in and drop them again ("dynamic VRAM");
    those are loaded once more from their file, as a clone that stays. Others share theirs.

    Raises:
        LikenessError: the weights are streamed and the host does not know where they came from.
    """
    if "disable_dynamic" not in inspect.signature(model.clone).parameters:
        return model.clone()
    if model.is_dynamic() and getattr(model, "cached_patcher_init", None) is None:
        raise LikenessError("The MODEL's weights are streamed by ComfyUI's dynamic VRAM, and its "
                            "loader did not say how to load them again for training; load it with "
                            "a core loader, or start ComfyUI with --disable-dynamic-vram.")
    return model.clone(disable_dynamic=True)


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a weights file without executing anything in it.

    Raises:
        LikenessError: the file is damaged, or holds more than weights.
    """
    try:
        return comfy.utils.load_torch_file(str(path), safe_load=True)
    except (RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError) as err:
        raise LikenessError(f"`{Path(path).name}` cannot be read as plain weights: it is "
                            "incomplete or holds something else; get it again, if possible as "
                            "safetensors.") from err
