"""Recipes: everything that decides a training run except the data, the model and the seed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from ..errors import LikenessError


class Target(str, Enum):
    """Which layers of the diffusion model learn."""

    CROSS_ATTENTION = "cross-attention"
    ATTENTION = "attention"
    ATTENTION_FEED_FORWARD = "attention and feed-forward"
    ALL_LINEAR = "all linear"


class Schedule(str, Enum):
    """How the learning rate goes from its value after the warm-up to the end."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class Precision(str, Enum):
    """The number format the frozen model computes in; adapters are always float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Timesteps(str, Enum):
    """How noise levels are drawn."""

    AUTO = "auto"
    UNIFORM = "uniform"
    LOGIT_NORMAL = "logit-normal"


OPTIMIZERS = ("adamw",)


def _require(holds: bool, name: str, rule: str, value: Any) -> None:
    if not holds:
        raise LikenessError(f"`{name}` must be {rule}, got {value}.")


def _choice(kind: type[Enum], name: str, value: Any) -> Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise LikenessError(f"`{name}` must be one of {known}, got {value}.") from None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every training technique shares.

    Raises:
        LikenessError: a value that cannot train; the text names the field and its range.
    """

    method: ClassVar[str] = ""

    steps: int = 1000
    learning_rate: float = 1e-4
    batch_size: int = 1
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: Schedule = Schedule.CONSTANT
    warmup: int = 0  # steps over which the rate rises linearly from near zero
    gradient_clip: float = 1.0  # largest norm of the whole gradient; 0: no clipping
    gradient_checkpointing: bool = True
    background: float = 0.2  # weight of what is not face; 1: the face weighs no more than the rest
    caption_dropout: float = 0.05  # share of batches that train on the empty caption
    timesteps: Timesteps = Timesteps.AUTO
    shift: float = 0.0  # of flow models' noise levels; 0: the model's own
    min_snr: float = 5.0  # gamma for noise- and velocity-predicting models; 0: off
    guidance: float = 1.0  # what guidance-distilled models (FLUX.1-dev) are told
    precision: Precision = Precision.AUTO

    def __post_init__(self) -> None:
        for name, kind in (("schedule", Schedule), ("precision", Precision),
                           ("timesteps", Timesteps)):
            object.__setattr__(self, name, _choice(kind, name, getattr(self, name)))
        # One step has no curve: core's loss plot divides by the spread of the losses.
        _require(self.steps >= 2, "steps", "at least 2", self.steps)
        _require(0 < self.learning_rate <= 1, "learning_rate", "above 0 and at most 1",
                 self.learning_rate)
        _require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        _require(self.optimizer in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}",
                 self.optimizer)
        _require(0 <= self.weight_decay < 1, "weight_decay", "0 to below 1", self.weight_decay)
        _require(0 <= self.warmup < self.steps, "warmup", "0 to below `steps`", self.warmup)
        _require(self.gradient_clip >= 0, "gradient_clip", "0 or more", self.gradient_clip)
        # At 0 the network would never see a background again and fill it with noise.
        _require(0 < self.background <= 1, "background", "above 0 and at most 1", self.background)
        _require(0 <= self.caption_dropout < 1, "caption_dropout", "0 to below 1",
                 self.caption_dropout)
        _require(self.shift >= 0, "shift", "0 or more", self.shift)
        _require(self.min_snr >= 0, "min_snr", "0 or more", self.min_snr)
        _require(self.guidance >= 0, "guidance", "0 or more", self.guidance)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        match self.schedule:
            case Schedule.COSINE:
                return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            case Schedule.LINEAR:
                return self.learning_rate * (1 - done)
        return self.learning_rate

    def as_dict(self) -> dict[str, Any]:
        """The method and every field as plain values, for reports, metadata and run keys."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: value.value if isinstance(value, Enum) else value
                 for name, value in fields.items()}
        return {"method": self.method, **plain}


@dataclass(frozen=True, kw_only=True)
class LoRARecipe(Recipe):
    """Low-rank adapters beside the frozen layers (https://arxiv.org/abs/2106.09685)."""

    method: ClassVar[str] = "lora"

    rank: int = 16
    alpha: float = 16.0  # the adapter's output is scaled by alpha / rank
    target: Target = Target.ATTENTION_FEED_FORWARD

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "target", _choice(Target, "target", self.target))
        _require(self.rank >= 1, "rank", "at least 1", self.rank)
        _require(self.alpha > 0, "alpha", "above 0", self.alpha)

    @property
    def scale(self) -> float:
        """What the adapter's output is multiplied by."""
        return self.alpha / self.rank
