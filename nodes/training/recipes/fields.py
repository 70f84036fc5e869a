"""The choices that recipes offer, and the checks of what they are given."""

from __future__ import annotations

from enum import Enum
from typing import Any

from ...errors import LikenessError


class Target(str, Enum):
    """Which layers of the diffusion model learn."""

    CROSS_ATTENTION = "cross-attention"
    ATTENTION = "attention"
    ATTENTION_FEED_FORWARD = "attention and feed-forward"
    ALL_LINEAR = "all linear"
    CONVOLUTIONS = "all linear and convolutions"


class Schedule(str, Enum):
    """How the learning rate goes from its value after the warm-up to the end."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class Optimizer(str, Enum):
    """How gradients become steps."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw 8-bit"
    ADAFACTOR = "adafactor"
    PRODIGY = "prodigy"
    LION = "lion"
    SCHEDULE_FREE = "adamw schedule-free"


class Precision(str, Enum):
    """The number format the frozen model computes in; what learns is always float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class BaseWeights(str, Enum):
    """How the frozen weights lie in memory while others learn."""

    AS_LOADED = "as loaded"
    FP8 = "fp8"
    NF4 = "nf4"


class Timesteps(str, Enum):
    """How noise levels are drawn."""

    AUTO = "auto"
    UNIFORM = "uniform"
    LOGIT_NORMAL = "logit-normal"
    MODE = "mode"


class Weighting(str, Enum):
    """How much each noise level counts in the loss."""

    AUTO = "auto"  # min-SNR where a `min_snr` applies, else none
    NONE = "none"
    DEBIASED = "debiased"
    SIGMA_SQRT = "sigma sqrt"
    COSMAP = "cosmap"


class Loss(str, Enum):
    """What an error costs."""

    SQUARED = "squared"
    HUBER = "huber"
    SMOOTH_L1 = "smooth l1"


class HuberSchedule(str, Enum):
    """How the width of the Huber loss depends on the noise level."""

    CONSTANT = "constant"
    EXPONENTIAL = "exponential"
    SNR = "snr"


class Initialisation(str, Enum):
    """What an adapter's first factor starts from; the other one always starts at zero."""

    KAIMING = "kaiming"
    ORTHOGONAL = "orthogonal"


def require(holds: bool, name: str, rule: str, value: Any) -> None:
    """Refuse a field's value.

    Raises:
        LikenessError: `holds` is false; the text names the field and its range.
    """
    if not holds:
        raise LikenessError(f"`{name}` must be {rule}, got {value}.")


def choice(kind: type[Enum], name: str, value: Any) -> Enum:
    """The member of an enumeration that a field names.

    Raises:
        LikenessError: there is none of that name.
    """
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise LikenessError(f"`{name}` must be one of {known}, got {value}.") from None
