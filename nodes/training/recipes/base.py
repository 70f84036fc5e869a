"""What every training technique shares: steps, learning rate, objective and memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from ...errors import LikenessError
from .fields import (
    BaseWeights,
    HuberSchedule,
    Loss,
    Optimizer,
    Precision,
    Schedule,
    Timesteps,
    Weighting,
    choice,
    require,
)

_CHOICES = {"schedule": Schedule, "precision": Precision, "timesteps": Timesteps,
            "optimizer": Optimizer, "weighting": Weighting, "loss": Loss,
            "huber_schedule": HuberSchedule, "base_weights": BaseWeights}
# name -> (lowest, highest, whether the lowest itself is allowed); None: no bound
_RANGES: Mapping[str, tuple[float, float | None, bool]] = {
    "learning_rate": (0, 1, False),
    "batch_size": (1, None, True),
    "accumulate": (1, None, True),
    "weight_decay": (0, 1, True),
    "gradient_clip": (0, None, True),
    "ema": (0, 0.99999, True),
    # At 0 the network would never see a background again and fill it with noise.
    "background": (0, 1, False),
    "caption_dropout": (0, 0.99, True),
    "shift": (0, None, True),
    "logit_std": (0, None, False),
    "min_snr": (0, None, True),
    "guidance": (0, None, True),
    "huber_width": (0, None, False),
    "noise_offset": (0, 1, True),
    "class_weight": (0, None, True),
    "class_word_weight": (0, None, True),
    "outside_weight": (0, None, True),
    "identity_weight": (0, None, True),
    "identity_snr": (0, None, True),
    "identity_from": (0, 1, True),
}


@dataclass(frozen=True, kw_only=True)
class TokenSettings:
    """New words of the text encoders that learn to mean the person.

    Textual inversion (https://arxiv.org/abs/2208.01618); together with adapters, pivotal tuning.
    """

    vectors: int = 2  # rows that the word takes
    initial_word: str = ""  # empty: the subject's class noun
    learning_rate: float = 1e-3
    share: float = 1.0  # of all steps after which the rows stay as they are
    norm_weight: float = 1e-3  # how strongly the rows are held at a usual word's length

    def __post_init__(self) -> None:
        require(1 <= self.vectors <= 32, "vectors", "1 to 32", self.vectors)
        require(0 < self.learning_rate <= 1, "token_learning_rate", "above 0 and at most 1",
                self.learning_rate)
        require(0 < self.share <= 1, "token_share", "above 0 and at most 1", self.share)
        require(self.norm_weight >= 0, "norm_weight", "0 or more", self.norm_weight)


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
    accumulate: int = 1  # batches whose gradients make one step
    optimizer: Optimizer = Optimizer.ADAMW
    weight_decay: float = 0.01
    schedule: Schedule = Schedule.CONSTANT
    warmup: int = 0  # steps over which the rate rises linearly from near zero
    gradient_clip: float = 1.0  # largest norm of the whole gradient; 0: no clipping
    ema: float = 0.0  # share of the running average that each step keeps; 0: no averaging

    background: float = 0.2  # weight of what is not face; 1: the face weighs no more than the rest
    caption_dropout: float = 0.05  # share of samples that train on the empty caption
    balance_poses: bool = True  # draw photos evenly over head poses rather than over files
    timesteps: Timesteps = Timesteps.AUTO
    logit_mean: float = 0.0  # of the logit-normal noise levels; higher is noisier
    logit_std: float = 1.0
    shift: float = 0.0  # of flow models' noise levels; 0: the model's own
    shift_by_resolution: bool = False  # FLUX.1's own shift for the latent's size instead
    weighting: Weighting = Weighting.AUTO
    min_snr: float = 5.0  # gamma for noise- and velocity-predicting models; 0: off
    loss: Loss = Loss.SQUARED
    huber_width: float = 0.1  # error from which the loss grows linearly
    huber_schedule: HuberSchedule = HuberSchedule.SNR
    noise_offset: float = 0.0  # spread of a constant added to each channel's noise
    guidance: float = 1.0  # what guidance-distilled models (FLUX.1-dev) are told
    class_weight: float = 1.0  # of class photos, where a run has them (prior preservation)
    class_word_weight: float = 0.0  # of keeping what the class word means, without class photos
    outside_weight: float = 0.0  # of keeping what is outside the face mask as it was
    identity_weight: float = 0.0  # of the recogniser's distance
    identity_snr: float = 1.0  # signal-to-noise ratio from which the recogniser is asked
    identity_from: float = 0.5  # share of the steps after which it is asked

    gradient_checkpointing: bool = True
    precision: Precision = Precision.AUTO
    base_weights: BaseWeights = BaseWeights.AS_LOADED
    tokens: TokenSettings | None = None

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, choice(kind, name, getattr(self, name)))
        # One step has no curve: core's loss plot divides by the spread of the losses.
        require(self.steps >= 2, "steps", "at least 2", self.steps)
        require(0 <= self.warmup < self.steps, "warmup", "0 to below `steps`", self.warmup)
        for name, (low, high, included) in _RANGES.items():
            value = getattr(self, name)
            inside = (value >= low if included else value > low) and (
                high is None or value <= high)
            rule = f"{'at least' if included else 'above'} {low}" + (
                "" if high is None else f" and at most {high}")
            require(inside, name, rule, value)

    def rate_factor(self, step: int) -> float:
        """What the learning rates of a step, counted from 0, are multiplied by."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        match self.schedule:
            case Schedule.COSINE:
                return 0.5 * (1 + math.cos(math.pi * done))
            case Schedule.LINEAR:
                return 1 - done
        return 1.0

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * self.rate_factor(step)

    def with_options(self, options: Mapping[str, Any]) -> Recipe:
        """The recipe with other values of some fields.

        Raises:
            LikenessError: a field that this technique does not have, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(self)}
        for name in options:
            if name not in known:
                raise LikenessError(f"`{name}` is no setting of the technique `{self.method}`; "
                                    "disconnect the options that set it.")
        return dataclasses.replace(self, **options)

    def as_dict(self) -> dict[str, Any]:
        """The method and every field as plain values, for reports, metadata and run keys."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"method": self.method, **{name: _plain(value) for name, value in fields.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name))
                for field in dataclasses.fields(value)}
    return value
