"""What a run will take on the compute device, part by part, and the cheapest way to take less.

Plain arithmetic over counts: the caller asks the host for them. Gigabytes are 2^30 bytes, and
nothing is added for what an allocator loses between its blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..recipes.fields import BaseWeights, Optimizer
from .optimizers import state_bytes

# Stored activations against those of one sampling step, with and without checkpointing: one block
# and the inputs of the others, or every block.
ACTIVATIONS: Mapping[bool, float] = {True: 3.0, False: 12.0}
# Activations of a decode that has a backward pass against the host's estimate of one without: half
# measured on SD's decoder (2.6), half counted (one block at full size and the others' inputs).
DECODING: Mapping[bool, float] = {True: 1.0, False: 2.6}
# Bytes per weight: e4m3 with a scale per row; NF4 with double quantisation. See quantise.py.
_CODE_BYTES = {BaseWeights.FP8: 1.004, BaseWeights.NF4: 0.5163}
_RESOLUTIONS = (768, 512)
_SMALLEST_RANK = 4


@dataclass(frozen=True)
class MemoryPlan:
    """The bytes of one run by part; `dataclasses.replace` asks what another setting would take."""

    stored_bytes: int  # of all frozen weights as loaded
    code_parameters: int  # weights that fp8 or NF4 would hold as codes
    code_stored_bytes: int  # what those take as loaded
    learned_shapes: tuple[tuple[int, ...], ...]  # of everything that learns, float32
    sampling_bytes: int  # the host's `memory_required` of one sample: [1, C, h, w]
    resolution: int  # side of the training pictures in pixels that `sampling_bytes` is for
    batch_size: int = 1
    accumulate: int = 1
    gradient_checkpointing: bool = True
    optimizer: Optimizer = Optimizer.ADAMW
    base_weights: BaseWeights = BaseWeights.AS_LOADED
    averaged: bool = False  # a running average is kept
    graphs: int = 1  # forward passes of a batch that wait for their backward at once
    text_bytes: int = 0  # of text encoders that learn: weights and activations
    vae_bytes: int = 0  # where an identity loss asks them: a decoder's weights and activations
    rank: int | None = None  # of adapters; None: whole weights learn
    # Whole weights: share of what learns now that smaller presets would leave, largest first.
    targets: tuple[tuple[str, float], ...] = ()
    learned_share: float = 1.0  # of `learned_shapes` that is left after such a change

    @property
    def frozen(self) -> int:
        """Frozen weights."""
        if self.base_weights is BaseWeights.AS_LOADED:
            return self.stored_bytes
        codes = self.code_parameters * _CODE_BYTES[self.base_weights]
        return self.stored_bytes - self.code_stored_bytes + int(min(codes, self.code_stored_bytes))

    @property
    def learned(self) -> int:
        """What learns, in float32."""
        return int(4 * sum(map(math.prod, self.learned_shapes)) * self.learned_share)

    @property
    def gradients(self) -> int:
        """Gradients of what learns."""
        return self.learned

    @property
    def optimizer_states(self) -> int:
        """The optimiser's states."""
        return int(state_bytes(self.optimizer, self.learned_shapes) * self.learned_share)

    @property
    def average(self) -> int:
        """The running average of what learns."""
        return self.learned if self.averaged else 0

    @property
    def activations(self) -> int:
        """What a batch's forward passes keep for their backward."""
        return int(self.sampling_bytes * self.batch_size * self.graphs
                   * ACTIVATIONS[self.gradient_checkpointing])

    @property
    def resident(self) -> int:
        """What cannot be streamed in and out: all but the frozen weights."""
        return self.total - self.frozen

    @property
    def total(self) -> int:
        """Everything at once."""
        return sum(self._parts().values())

    def _parts(self) -> dict[str, int]:
        return {"frozen_weights": self.frozen, "learned": self.learned,
                "gradients": self.gradients, "optimizer_states": self.optimizer_states,
                "average": self.average, "activations": self.activations,
                "text_encoder": self.text_bytes, "vae": self.vae_bytes}

    def as_dict(self) -> dict[str, int]:
        """Bytes by part and in all, for reports."""
        return {**self._parts(), "total": self.total}


@dataclass(frozen=True)
class _Change:
    """One setting that takes less memory."""

    part: str  # changes of one part take each other's place
    text: str
    fields: Mapping[str, Any]


def cheapest_change(plan: MemoryPlan, free_bytes: int) -> str:
    """One sentence on the change that costs the user least and makes a run fit; empty if it does.

    Slower but equal comes first, then what hardly changes the result (states and frozen weights in
    fewer bits), then smaller pictures, then less that learns. Changes are combined only where a
    cheaper one alone does not do.
    """
    if plan.total <= free_bytes:
        return ""
    taken: dict[str, _Change] = {}
    for change in _changes(plan):
        if _with(plan, {**taken, change.part: change}).total >= _with(plan, taken).total:
            continue
        taken[change.part] = change
        if _with(plan, taken).total <= free_bytes:
            needed = _without_idle(plan, taken, change.part, free_bytes)
            after = _with(plan, needed).total
            texts = " and ".join(part.text for part in needed.values())
            return (f"{texts[0].upper()}{texts[1:]}: that takes {gigabytes(after)} instead of "
                    f"{gigabytes(plan.total)}, of {gigabytes(free_bytes)} free.")
    return (f"No setting makes this run fit: with every saving it would still take "
            f"{gigabytes(_with(plan, taken).total)}, of {gigabytes(free_bytes)} free; "
            "train a smaller model or use a GPU with more memory.")


def _changes(plan: MemoryPlan) -> Iterator[_Change]:
    """Every change that the plan leaves room for, the cheapest for the user first."""
    if not plan.gradient_checkpointing:
        yield _Change("checkpointing", "switch `gradient_checkpointing` on",
                      {"gradient_checkpointing": True})
    if plan.batch_size > 1:
        accumulate = plan.accumulate * plan.batch_size
        yield _Change("batch", f"set `batch_size` to 1 and `accumulate` to {accumulate}",
                      {"batch_size": 1, "accumulate": accumulate})
    yield _Change("optimizer", f"set `optimizer` to {Optimizer.ADAMW_8BIT.value}",
                  {"optimizer": Optimizer.ADAMW_8BIT})
    for kind in (BaseWeights.FP8, BaseWeights.NF4):
        yield _Change("base", f"set `base_weights` to {kind.value}", {"base_weights": kind})
    for side in _RESOLUTIONS:
        if side < plan.resolution:
            sampling = int(plan.sampling_bytes * (side / plan.resolution) ** 2)
            yield _Change("resolution", f"prepare the photos at {side} pixels",
                          {"resolution": side, "sampling_bytes": sampling})
    rank = plan.rank or 0
    while rank // 2 >= _SMALLEST_RANK:
        rank //= 2
        yield _Change("learned", f"set `rank` to {rank}",
                      {"rank": rank, "learned_share": rank / plan.rank})
    for name, share in plan.targets:
        yield _Change("learned", f"set `target` to {name}", {"learned_share": share})


def _with(plan: MemoryPlan, changes: Mapping[str, _Change]) -> MemoryPlan:
    fields: dict[str, Any] = {}
    for change in changes.values():
        fields.update(change.fields)
    return dataclasses.replace(plan, **fields)


def _without_idle(plan: MemoryPlan, taken: Mapping[str, _Change], last: str,
                  free_bytes: int) -> dict[str, _Change]:
    """The changes that are needed beside the last one, the dearest ones dropped first."""
    needed = dict(taken)
    for part in reversed([part for part in taken if part != last]):
        fewer = {name: change for name, change in needed.items() if name != part}
        if _with(plan, fewer).total <= free_bytes:
            needed = fewer
    return needed


def gigabytes(size: int) -> str:
    """Bytes as a message says them."""
    return f"{size / 2 ** 30:.1f} GB"
