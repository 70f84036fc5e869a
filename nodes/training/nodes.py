"""All nodes of training, in the order in which a graph uses them."""

from __future__ import annotations

from comfy_api.latest import io

from .apply.nodes import NODES as APPLY
from .compare.nodes import NODES as COMPARE
from .kohya.nodes import NODES as KOHYA
from .pictures.class_nodes import NODES as CLASS_PHOTOS
from .recipes.option_nodes import NODES as OPTIONS
from .recipes.preset_nodes import NODES as PRESETS
from .recipes.recipe_nodes import NODES as RECIPES
from .run.nodes import NODES as TRAIN
from .start.nodes import NODES as START
from .watch.nodes import NODES as MONITOR

NODES: list[type[io.ComfyNode]] = [*RECIPES, *PRESETS, *OPTIONS, *CLASS_PHOTOS, *MONITOR, *START,
                                   *TRAIN, *COMPARE, *APPLY, *KOHYA]
