"""What training steps keep and take, in bytes of tensors: exact, and the same on a busy machine.

Counted from the allocator's own events, so what lives already when a step begins (weights, learned
values, optimiser states) has no part in it, and copies that a library holds inside one operation
are not seen.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from training_contenders import Setting, core_node
from training_networks import Networks

_BACKWARD = "backward begins"


def step_bytes(step: Callable[[], Any]) -> dict[str, int]:
    """What lives when a step's backward begins, and the most that lives at any time in the step.

    Args:
        step: makes one step; the first one has been made.
    """
    with _marked(), _Recorded() as recorded:
        step()
    return recorded.figures()


def core_step_bytes(networks: Networks, setting: Setting, **options: Any) -> dict[str, int]:
    """`step_bytes` of the second step of core's node."""
    recorded = _Recorded()
    # Between the first progress of the node and the second lies exactly one step.
    moves = iter((recorded.__enter__, recorded.__exit__))
    with _marked():
        core_node(networks, setting, **options)(2, lambda: next(moves)())
    return recorded.figures()


def graph_bytes(step: Callable[[], Any], frozen: Iterable[torch.Tensor]) -> int:
    """Bytes that autograd saves in one step's forward, each stored once; frozen weights left out.

    A graph whose backward is refused (core's FLUX without checkpointing) counts too.
    """
    weights = {value.untyped_storage().data_ptr() for value in frozen}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter) and storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        try:
            step()
        except RuntimeError as err:
            if "modified by an inplace operation" not in str(err):
                raise
    return sum(saved.values())


@contextmanager
def _marked() -> Iterator[None]:
    """While this lasts a profile shows where each backward pass begins."""
    backward = torch.Tensor.backward

    def marked(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        with torch.profiler.record_function(_BACKWARD):
            pass
        backward(self, *args, **kwargs)

    torch.Tensor.backward = marked
    try:
        yield
    finally:
        torch.Tensor.backward = backward


class _Recorded:
    """The allocator's events while a block runs."""

    def __init__(self) -> None:
        self._profile = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> _Recorded:
        self._profile.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._profile.__exit__(None, None, None)

    def figures(self) -> dict[str, int]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self._profile.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        begins = min(event["ts"] for event in events if event.get("name") == _BACKWARD)
        moves = sorted((event["ts"], event["args"]["Addr"], event["args"]["Bytes"])
                       for event in events if event.get("name") == "[memory]")
        live: dict[int, int] = {}
        now = most = kept = 0
        for time, address, size in moves:
            # What was allocated before is not this step's to free.
            now += size if size > 0 else -live.pop(address, 0)
            if size > 0:
                live[address] = size
            most = max(most, now)
            if time <= begins:
                kept = now
        return {"kept": kept, "peak": most}
