"""The extension: every feature's nodes, in the order of the path from photos to headshots."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import models
from .control.nodes import NODES as CONTROL
from .dataset.nodes import NODES as DATASET
from .identity.nodes import NODES as IDENTITY
from .restore.nodes import NODES as RESTORE
from .scoring.nodes import NODES as SCORING
from .style.nodes import NODES as STYLE
from .training.nodes import NODES as TRAINING

# At import, not in on_load: hosts before 0.14 never call that, and schemas list these folders.
models.register_folders()


class LikenessExtension(ComfyExtension):
    """Everything ComfyUI needs to know about the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [*DATASET, *TRAINING, *STYLE, *CONTROL, *IDENTITY, *RESTORE, *SCORING]
