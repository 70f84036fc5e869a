"""Adapters as sd-scripts' network modules, or LyCORIS' where sd-scripts have none."""

from __future__ import annotations

import math

from ...errors import LikenessError
from ..recipes.adapters import AdapterRecipe, OFTRecipe
from ..recipes.fields import Target
from .lycoris import VERSION, preset
from .settings import Settings

_MODULES = {"sd15": "networks.lora", "sdxl": "networks.lora", "sd3": "networks.lora_sd3",
            "flux": "networks.lora_flux"}
LYCORIS = "lycoris.kohya"
_ALGORITHMS = {"dora": "lora", "loha": "loha", "lokr": "lokr", "oft": "diag-oft"}
# Parts of a transformer block whose rank can be told apart: attention, feed-forward, modulation.
_PARTS = {"sd3": (("x_attn", "context_attn"), ("x_mlp", "context_mlp"), ("x_mod", "context_mod")),
          "flux": (("img_attn", "txt_attn", "single"), ("img_mlp", "txt_mlp"),
                   ("img_mod", "txt_mod", "single_mod"))}


def is_plain(recipe: AdapterRecipe) -> bool:
    """Whether sd-scripts' own networks know the technique."""
    return recipe.method not in _ALGORITHMS


def size(recipe: AdapterRecipe) -> tuple[int, float]:
    """`network_dim` and `network_alpha` of the scripts."""
    # LyCORIS reads the size of a rotation where others have their rank.
    rank = recipe.block_size if isinstance(recipe, OFTRecipe) else recipe.rank
    # The scripts divide by the rank; rank-stabilised scaling is a larger alpha there.
    return rank, float(recipe.alpha * (math.sqrt(recipe.rank) if recipe.rank_stabilised else 1.0))


def lycoris_arguments(recipe: AdapterRecipe) -> dict[str, str]:
    """LyCORIS' arguments for a technique that it alone knows, as it writes them into its files."""
    found = {"algo": _ALGORITHMS[recipe.method]}
    if recipe.method == "dora":
        # One length per column of the weight, which ComfyUI's loader expects.
        found |= {"dora_wd": "True", "wd_on_output": "False"}
    if recipe.method == "lokr":
        found["factor"] = str(recipe.factor)
    return found


def network_arguments(made: Settings, recipe: AdapterRecipe, architecture: str) -> None:
    """Add the arguments of an adapter.

    Raises:
        LikenessError: the network has no layers of the recipe's preset.
    """
    if recipe.target is Target.CROSS_ATTENTION and architecture in _PARTS:
        raise LikenessError(f"A {architecture} model has no layers of the preset "
                            f"`{recipe.target.value}`; choose `{Target.ATTENTION.value}`.")
    own = is_plain(recipe)
    rank, alpha = size(recipe)
    made.arguments |= {
        "network_module": _MODULES[architecture] if own else LYCORIS,
        "network_dim": rank, "network_alpha": alpha}
    options = (_own_options if own else _lycoris_options)(made, recipe, architecture)
    if recipe.rank_dropout > 0:
        options.append(f"rank_dropout={recipe.rank_dropout!r}")
    if getattr(recipe, "plus_ratio", 1.0) != 1.0:
        options.append(f"loraplus_lr_ratio={recipe.plus_ratio!r}")
    if options:
        made.arguments["network_args"] = options
    if recipe.text_encoder:
        rate = recipe.learning_rate * recipe.text_rate
        made.arguments |= {"unet_lr": recipe.learning_rate, "text_encoder_lr": [rate]}
    else:
        made.arguments["network_train_unet_only"] = True
    made.take("rank", "alpha", "rank_stabilised", "target", "rank_dropout", "text_encoder",
              "text_rate", "plus_ratio", "factor", "block_size")
    if recipe.text_encoder and architecture in _PARTS:
        made.lose("text_encoder", "the CLIP encoders learn, T5 does not")
    if recipe.tokens is not None:
        made.lose("tokens", "new words and adapters do not learn in one run there; train the word "
                            "with a textual inversion recipe first")


def _own_options(made: Settings, recipe: AdapterRecipe, architecture: str) -> list[str]:
    if architecture in _PARTS:
        return _part_ranks(made, recipe, architecture)
    if recipe.target is Target.CONVOLUTIONS:
        made.lose("target", "layers outside the blocks have no adapter there")
        alpha = made.arguments["network_alpha"]
        return [f"conv_dim={recipe.rank}", f"conv_alpha={alpha!r}"]
    what = "the same layers, and the projections round each transformer"
    if recipe.target is Target.ALL_LINEAR:
        what = "the linear layers of the transformers alone"
    elif recipe.target is not Target.ATTENTION_FEED_FORWARD:
        what = "attention and feed-forward layers, which cannot be told apart there"
    made.lose("target", f"the network has adapters in {what}")
    return []


def _part_ranks(made: Settings, recipe: AdapterRecipe, architecture: str) -> list[str]:
    attention, feed_forward, modulation = _PARTS[architecture]
    everything = recipe.target in (Target.ALL_LINEAR, Target.CONVOLUTIONS)
    ranks = dict.fromkeys(attention, recipe.rank)
    learns = everything or recipe.target is Target.ATTENTION_FEED_FORWARD
    ranks |= dict.fromkeys(feed_forward, recipe.rank if learns else 0)
    ranks |= dict.fromkeys(modulation, recipe.rank if everything else 0)
    if everything:
        made.lose("target", "layers outside the blocks have no adapter there")
    return [f"{part}_dim={rank}" for part, rank in ranks.items()]


def _lycoris_options(made: Settings, recipe: AdapterRecipe, architecture: str) -> list[str]:
    made.lose("method", f"sd-scripts need LyCORIS for it, tried with {VERSION}: pip install "
                        f"lycoris-lora=={VERSION} in their environment")
    made.preset = preset(recipe, architecture)
    if isinstance(recipe, OFTRecipe) and recipe.constraint > 0:
        made.lose("constraint", "LyCORIS multiplies its own by each layer's outputs and its files "
                                "do not say so, so ComfyUI would load them otherwise")
    return [f"{name}={value}" for name, value in lycoris_arguments(recipe).items()]
