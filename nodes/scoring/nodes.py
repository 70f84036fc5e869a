"""All nodes of scoring, in the order in which a graph uses them."""

from __future__ import annotations

from comfy_api.latest import io

from .bank.nodes import NODES as BANK
from .pick.nodes import NODES as PICK
from .report.nodes import NODES as REPORT
from .score.nodes import NODES as SCORE
from .sweep.nodes import NODES as SWEEP

NODES: list[type[io.ComfyNode]] = [*SCORE, *BANK, *PICK, *SWEEP, *REPORT]
