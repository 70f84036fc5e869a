"""Which learning rates an optimiser can take."""

from __future__ import annotations

from collections.abc import Collection

from ...errors import LikenessError
from .fields import Optimizer


def check_rates(optimizer: Optimizer, rates: Collection[float]) -> None:
    """Check the rates of all that learns in a run.

    Raises:
        LikenessError: the optimiser finds its rate itself, and these are not for it.
    """
    if optimizer is not Optimizer.PRODIGY:
        return
    if min(rates) < 0.1:
        raise LikenessError("The optimiser `prodigy` finds the learning rate itself; set "
                            f"`learning_rate` to 1, got {min(rates):g}.")
    if len(set(rates)) > 1:
        raise LikenessError("The optimiser `prodigy` finds one learning rate for all that learns; "
                            "set the ratios between rates (`plus_ratio`, `text_rate`) and the "
                            "token's rate to 1.")
