"""Which layers LyCORIS teaches, as the preset file that names them.

Read by lycoris-lora 4.1.3. Its own presets are lists of classes, which teach other layers than
this trainer's and on some networks two of one name.
"""

from __future__ import annotations

from typing import Any

from ..recipes.adapters import AdapterRecipe
from ..recipes.fields import Target

VERSION = "4.1.3"
_EVERYTHING = (Target.ALL_LINEAR, Target.CONVOLUTIONS)
# Regular expressions for whole paths in sd-scripts' networks. What they fit besides layers is
# passed over there, so that one may name a part of a block.
_UNET = {Target.CROSS_ATTENTION: (r".+\.attn2\..+$",), Target.ATTENTION: (r".+\.attn[12]\..+$",),
         Target.ATTENTION_FEED_FORWARD: (r".+\.attn[12]\..+$", r".+\.ff\..+$")}
_SD3 = {Target.ATTENTION: (r"joint_blocks\.\d+\.\w+_block\.attn2?\..+$",),
        Target.ATTENTION_FEED_FORWARD: (r"joint_blocks\.\d+\.\w+_block\.(attn2?|mlp)\..+$",)}
_SINGLE = r"single_blocks\.\d+\.linear[12]$"
_FLUX = {Target.ATTENTION: (r"double_blocks\.\d+\.\w+_attn\..+$", _SINGLE),
         Target.ATTENTION_FEED_FORWARD: (r"double_blocks\.\d+\.\w+_(attn|mlp)\..+$", _SINGLE)}
_NETWORKS = {"sd15": _UNET, "sdxl": _UNET, "sd3": _SD3, "flux": _FLUX}
# Of the CLIP encoders; T5 learns in none of the scripts unless it is asked for by itself.
_ATTENTION, _FEED_FORWARD = r"text_model\..+\.self_attn\..+$", r"text_model\..+\.mlp\..+$"
_TEXT = {Target.CROSS_ATTENTION: (_ATTENTION,), Target.ATTENTION: (_ATTENTION,),
         Target.ATTENTION_FEED_FORWARD: (_ATTENTION, _FEED_FORWARD)}


def preset(recipe: AdapterRecipe, architecture: str) -> dict[str, Any]:
    """The preset file's content for the layers that a recipe teaches."""
    everything = recipe.target in _EVERYTHING
    layers = (r".+$",) if everything else _NETWORKS[architecture][recipe.target]
    words = (r"text_(model|projection).*$",) if everything else _TEXT[recipe.target]
    return {
        "enable_conv": recipe.target is Target.CONVOLUTIONS,
        "unet_target_module": [], "unet_target_name": list(layers),
        # Left out, both would be LyCORIS' own.
        "text_encoder_target_module": [],
        "text_encoder_target_name": list(words) if recipe.text_encoder else []}
