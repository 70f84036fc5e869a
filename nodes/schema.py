"""Helpers that build V3 schemas the same way in every feature and on every supported host."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

from . import sockets

CATEGORY = "likeness"

PhotoSetType = io.Custom(sockets.PHOTO_SET)
SubjectType = io.Custom(sockets.SUBJECT)
TrainingSetType = io.Custom(sockets.TRAINING_SET)
RecipeType = io.Custom(sockets.RECIPE)
RecipeOptionsType = io.Custom(sockets.RECIPE_OPTIONS)
MonitorType = io.Custom(sockets.MONITOR)
TokenStartType = io.Custom(sockets.TOKEN_START)
StyleType = io.Custom(sockets.STYLE)
ControlStackType = io.Custom(sockets.CONTROL_STACK)
FaceAdapterType = io.Custom(sockets.FACE_ADAPTER)
RestorerType = io.Custom(sockets.RESTORER)
ReportType = io.Custom(sockets.REPORT)
ComparisonType = io.Custom(sockets.COMPARISON)
ImpostorBankType = io.Custom(sockets.IMPOSTOR_BANK)
LoraModelType = io.Custom("LORA_MODEL")
LossMapType = io.Custom("LOSS_MAP")

_KNOWN = frozenset(known.name for known in dataclasses.fields(io.Schema))


def schema(node_id: str, *, feature: str, **fields: Any) -> io.Schema:
    """Build a schema in the pack's category, dropping arguments that an older host lacks.

    Args:
        node_id: `Likeness` + verb + noun; never changes once released.
        feature: sub-menu below `likeness/`.
    """
    fields = {name: value for name, value in fields.items() if name in _KNOWN}
    return io.Schema(node_id=node_id, category=f"{CATEGORY}/{feature}", **fields)


def seed(tooltip: str = "Decides every random choice of this node.") -> io.Int.Input:
    """The seed input shared by nodes that draw random numbers.

    The canvas must not change it after a run, a new seed would train anew each time; without the
    explicit False it does so for every input of this name.
    """
    return io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=False,
                        tooltip=tooltip)
