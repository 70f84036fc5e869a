"""All nodes from photo files to a training set, in the order in which a graph uses them."""

from __future__ import annotations

from comfy_api.latest import io

from .caption.nodes import NODES as CAPTION
from .coach.nodes import NODES as COACH
from .curate.nodes import NODES as CURATE
from .prepare.crop_nodes import NODES as CROP
from .prepare.nodes import NODES as PREPARE
from .saved.load_nodes import NODES as LOAD
from .saved.save_nodes import NODES as SAVE
from .subject.nodes import NODES as SUBJECT

NODES: list[type[io.ComfyNode]] = [*LOAD, *CURATE, *COACH, *CROP, *CAPTION, *SAVE, *SUBJECT,
                                   *PREPARE]
