"""Nodes that say how to train, one for each technique."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...errors import LikenessError
from ...schema import RecipeOptionsType, RecipeType, schema
from . import widgets
from .adapters import DoRARecipe, LoHaRecipe, LoKrRecipe, LoRARecipe, OFTRecipe, QLoRARecipe
from .base import Recipe, TokenSettings
from .fields import BaseWeights, Initialisation
from .whole import DreamBoothRecipe, TextualInversionRecipe

_OPTIONS = RecipeOptionsType.Input(
    "options", optional=True,
    tooltip="Further settings from the option nodes: objective, identity loss, steps and memory.")
_OUTPUT = RecipeType.Output(display_name="recipe",
                            tooltip="The recipe, checked; goes into Train.")
_DETAIL = "Width of the adapters: file size and capacity grow with it. "


class _RecipeNode(io.ComfyNode):
    """What the recipe nodes share: their inputs are the fields of a recipe."""

    RECIPE: type[Recipe]

    @classmethod
    def execute(cls, options: Any = None, **fields) -> io.NodeOutput:
        # What the node itself shows counts: Step Options must not undo QLoRA's `base_weights`.
        others = {name: value for name, value in (options or {}).items() if name not in fields}
        return io.NodeOutput(cls.RECIPE(**fields).with_options(others))


def _recipe_schema(node_id: str, title: str, description: str, inputs: list) -> io.Schema:
    return schema(node_id, feature="training", display_name=title, description=description,
                  inputs=[*inputs, _OPTIONS], outputs=[_OUTPUT])


def _lora_inputs(rank: int = 8) -> list[io.Input]:
    return [
        *widgets.pace(1000, 1e-4, widgets.ADAPTER_RATE),
        *widgets.rank(rank, _DETAIL + "8 to 32 holds a face."),
        widgets.target(), *widgets.common(), *widgets.adapter_extras(),
        io.Float.Input("plus_ratio", default=1.0, min=1.0, max=64.0, step=1.0, optional=True,
                       tooltip="LoRA+: how many times faster the second matrix learns than the "
                               "first; 4 to 16 learns faster, 1 is off."),
        io.Combo.Input("initialisation", options=widgets.values(Initialisation),
                       default=Initialisation.KAIMING.value, optional=True,
                       tooltip="What the first matrix starts from; orthogonal keeps its rows "
                               "apart. The second starts at zero, so the model begins unchanged."),
    ]


class LoRARecipeNode(_RecipeNode):
    """How to train a LoRA."""

    RECIPE = LoRARecipe

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _recipe_schema(
            "LikenessLoRARecipe", "Likeness LoRA Recipe",
            "Settings for training a LoRA: small matrices beside the model's own. Takes numbers, "
            "gives a recipe for Train.", _lora_inputs())


class QLoRARecipeNode(_RecipeNode):
    """How to train a LoRA over a quantised model."""

    RECIPE = QLoRARecipe

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _recipe_schema(
            "LikenessQLoRARecipe", "Likeness QLoRA Recipe",
            "Settings for training a LoRA while the model's own weights lie in memory with 4 or 8 "
            "bits, so that large models fit small cards. Takes numbers, gives a recipe for Train.",
            [*_lora_inputs(),
             io.Combo.Input("base_weights", options=widgets.values(BaseWeights),
                            default=BaseWeights.NF4.value, optional=True,
                            tooltip="How the frozen weights lie in memory: nf4 is the smallest, "
                                    "fp8 twice as large and closer to the original; as loaded "
                                    "keeps a checkpoint that is quantised already.")])


class DoRARecipeNode(_RecipeNode):
    """How to train a DoRA."""

    RECIPE = DoRARecipe

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _recipe_schema(
            "LikenessDoRARecipe", "Likeness DoRA Recipe",
            "Settings for training a DoRA: a LoRA whose directions and lengths learn apart, at "
            "about a tenth more time a step. Takes numbers, gives a recipe for Train.",
            _lora_inputs())


class LoHaRecipeNode(_RecipeNode):
    """How to train a LoHa."""

    RECIPE = LoHaRecipe

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _recipe_schema(
            "LikenessLoHaRecipe", "Likeness LoHa Recipe",
            "Settings for training a LoHa: the element-wise product of two low-rank matrices, "
            "which reaches rank squared. Takes numbers, gives a recipe for Train.",
            [*widgets.pace(1000, 1e-4, widgets.ADAPTER_RATE),
             *widgets.rank(8, _DETAIL + "4 to 8 holds a face."), widgets.target(),
             *widgets.common(), *widgets.adapter_extras()])


class LoKrRecipeNode(_RecipeNode):
    """How to train a LoKr."""

    RECIPE = LoKrRecipe

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _recipe_schema(
            "LikenessLoKrRecipe", "Likeness LoKr Recipe",
            "Settings for training a LoKr: the Kronecker product of a small matrix and a low-rank "
            "one, the smallest files. Takes numbers, gives a recipe for Train.",
            [*widgets.pace(1000, 1e-3, "Size of a step. LoKr takes higher rates than LoRA, round "
                                       "1e-3; lower it when pictures turn noisy or waxy."),
             *widgets.rank(8, _DETAIL + "4 to 16 holds a face; a rank that reaches the larger "
                                        "matrix trains it whole."),
             io.Int.Input("factor", default=8, min=2, max=64,
                          tooltip="Largest side of the small matrix; lower means more to learn "
                                  "and a larger file."),
             widgets.target(), *widgets.common(), *widgets.adapter_extras()])


class OFTRecipeNode(_RecipeNode):
    """How to train an OFT."""

    RECIPE = OFTRecipe

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _recipe_schema(
            "LikenessOFTRecipe", "Likeness OFT Recipe",
            "Settings for training an OFT: rotations of each layer's outputs, which keep what the "
            "model knows close together. Takes numbers, gives a recipe for Train.",
            [*widgets.pace(1000, 1e-3, "Size of a step. Rotations take higher rates than LoRA, "
                                       "round 1e-3; lower it when pictures turn noisy or waxy."),
             io.Int.Input("block_size", default=16, min=2, max=512,
                          tooltip="Outputs that one rotation mixes; larger learns more and makes "
                                  "larger files."),
             widgets.target(), *widgets.common(),
             *[entry for entry in widgets.adapter_extras()
               if entry.id in ("text_encoder", "text_rate")],
             io.Float.Input("constraint", default=0.0, min=0.0, max=100.0, step=0.05, optional=True,
                            tooltip="Largest norm of all rotations of a layer together (COFT), so "
                                    "that it cannot leave the original by more than about twice "
                                    "this over the square root of its outputs: 1 is 8 % of a layer "
                                    "with 640. 0 is off; 0.3 to 3 keeps the model's style.")])


class DreamBoothRecipeNode(_RecipeNode):
    """How to fine-tune the model itself."""

    RECIPE = DreamBoothRecipe

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _recipe_schema(
            "LikenessDreamBoothRecipe", "Likeness DreamBooth Recipe",
            "Settings for fine-tuning the model's own weights; Train saves a whole checkpoint and "
            "needs CLIP and VAE. Connect class photos to Train to keep the class as it is. Takes "
            "numbers, gives a recipe for Train.",
            [*widgets.pace(800, 2e-6, "Size of a step, far below LoRA's: 1e-6 to 5e-6; lower it "
                                      "when pictures turn noisy."),
             widgets.target(), *widgets.common()])


def _token_inputs(share: bool) -> list[io.Input]:
    inputs = [
        io.Int.Input("vectors", default=2, min=1, max=32,
                     tooltip="Length of the new word in tokens; 1 to 4 holds a face, more takes "
                             "room from the prompt."),
        io.String.Input("initial_word", default="",
                        tooltip="Word that the new one starts from, such as woman. Empty: the "
                                "subject's class noun."),
        io.Float.Input("norm_weight", default=1e-3, min=0.0, max=1.0, step=1e-4, round=False,
                       tooltip="How strongly the new word is held at a usual word's length, which "
                               "keeps it obedient beside other words; 0 is off."),
    ]
    if not share:
        return inputs
    return inputs + [
        io.Float.Input("token_learning_rate", default=1e-3, min=1e-7, max=1.0, step=1e-4,
                       round=False, tooltip="Size of a step of the new word; 3e-4 to 5e-3."),
        io.Float.Input("token_share", default=0.5, min=0.01, max=1.0, step=0.05,
                       tooltip="Share of all steps after which the word stays as it is and only "
                               "the adapters learn on; 0.3 to 0.6."),
    ]


class TextualInversionRecipeNode(io.ComfyNode):
    """How to teach a new word."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _recipe_schema(
            "LikenessTextualInversionRecipe", "Likeness Textual Inversion Recipe",
            "Settings for teaching the text encoders a new word while the model stays as it is: "
            "files of 14 to 57 KB with two vectors. Train needs CLIP. Takes numbers, gives a "
            "recipe for Train.",
            [*widgets.pace(1500, 1e-3, "Size of a step of the new word; 3e-4 to 5e-3."),
             *_token_inputs(share=False), *widgets.common()])

    @classmethod
    def execute(cls, vectors: int, initial_word: str, norm_weight: float, learning_rate: float,
                options: Any = None, **fields) -> io.NodeOutput:
        tokens = TokenSettings(vectors=vectors, initial_word=initial_word, norm_weight=norm_weight,
                               learning_rate=learning_rate)
        recipe = TextualInversionRecipe(tokens=tokens, learning_rate=learning_rate, **fields)
        return io.NodeOutput(recipe.with_options(options or {}))


class PivotalRecipeNode(io.ComfyNode):
    """How to teach a new word and adapters together."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessPivotalRecipe", feature="training", display_name="Likeness Pivotal Recipe",
            description="Adds a new word to a recipe: word and adapters learn together, then the "
                        "word stays and the adapters learn on. Train needs CLIP and saves both "
                        "files; Apply Trained loads both.",
            inputs=[RecipeType.Input("recipe", tooltip="What learns beside the word: a LoRA or "
                                                       "one of its relatives, or DreamBooth; "
                                                       "not Textual Inversion."),
                    *_token_inputs(share=True)],
            outputs=[_OUTPUT])

    @classmethod
    def execute(cls, recipe: Recipe, vectors: int, initial_word: str, norm_weight: float,
                token_learning_rate: float, token_share: float) -> io.NodeOutput:
        if recipe.method == TextualInversionRecipe.method:
            raise LikenessError("A Textual Inversion recipe teaches a word alone; connect a LoRA "
                                "or DreamBooth recipe to Pivotal Recipe, or Textual Inversion to "
                                "Train.")
        tokens = TokenSettings(vectors=vectors, initial_word=initial_word, norm_weight=norm_weight,
                               learning_rate=token_learning_rate, share=token_share)
        return io.NodeOutput(recipe.with_options({"tokens": tokens}))


NODES: list[type[io.ComfyNode]] = [
    LoRARecipeNode, QLoRARecipeNode, DoRARecipeNode, LoHaRecipeNode, LoKrRecipeNode, OFTRecipeNode,
    DreamBoothRecipeNode, TextualInversionRecipeNode, PivotalRecipeNode]
