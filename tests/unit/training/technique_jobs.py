"""Whole jobs on tiny models: model, CLIP, VAE, captions that fit, photos and class photos.

Every technique has a recipe here that trains in a second.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.taesd.taesd
import numpy as np
import text_models
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.sockets import Subject, TrainingSet
from likeness.nodes.tensors import write_conditioning
from likeness.nodes.training.recipes.adapters import (
    DoRARecipe,
    LoHaRecipe,
    LoKrRecipe,
    LoRARecipe,
    OFTRecipe,
    QLoRARecipe,
)
from likeness.nodes.training.recipes.base import Recipe, TokenSettings
from likeness.nodes.training.recipes.whole import DreamBoothRecipe, TextualInversionRecipe
from likeness.nodes.training.run.job import Job
from safetensors import safe_open

from launcher.tiny import random_weights

TRIGGER, NOUN = "ohwx", "woman"
SUBJECT = Subject("Ann", TRIGGER, NOUN, (), (), {}, {}, np.zeros((478, 3)))
CLASS_CAPTION = f"a photo of a {NOUN}"
PLACES = ("indoors", "outdoors", "at night", "smiling")

_WORD = TokenSettings(share=0.5)
_TECHNIQUES: dict[str, tuple[type[Recipe], dict[str, Any]]] = {
    "lora": (LoRARecipe, {"rank": 4, "alpha": 4.0}),
    "lora of text encoders": (LoRARecipe, {"rank": 4, "alpha": 4.0, "text_encoder": True}),
    "rslora": (LoRARecipe, {"rank": 4, "alpha": 4.0, "rank_stabilised": True}),
    "lora+": (LoRARecipe, {"rank": 4, "alpha": 4.0, "plus_ratio": 16.0}),
    "qlora nf4": (QLoRARecipe, {"rank": 4, "alpha": 4.0}),
    "qlora fp8": (QLoRARecipe, {"rank": 4, "alpha": 4.0, "base_weights": "fp8"}),
    "dora": (DoRARecipe, {"rank": 4, "alpha": 4.0}),
    "loha": (LoHaRecipe, {"rank": 4, "alpha": 4.0}),
    "lokr": (LoKrRecipe, {"rank": 4, "alpha": 4.0, "factor": 4}),
    "oft": (OFTRecipe, {"block_size": 4}),
    "dreambooth": (DreamBoothRecipe, {"learning_rate": 1e-4}),
    "dreambooth with a word": (DreamBoothRecipe, {"learning_rate": 1e-4, "tokens": _WORD}),
    "textual inversion": (TextualInversionRecipe, {}),
    "pivotal": (LoRARecipe, {"rank": 4, "alpha": 4.0, "tokens": _WORD}),
}
TECHNIQUES = tuple(_TECHNIQUES)


def make_recipe(technique: str, **fields: Any) -> Recipe:
    """A quick recipe of a technique."""
    kind, own = _TECHNIQUES[technique]
    return kind(**{"steps": 4, "learning_rate": 1e-3, "gradient_checkpointing": False, **own,
                   **fields})


@lru_cache(maxsize=8)
def shared(name: str) -> dict[str, Any]:
    """A MODEL, CLIP and VAE of an architecture for all tests, which runs leave as they are."""
    model = training_models.make_model(name)
    clip = text_models.make_clip(name, Path(tempfile.gettempdir()) / "no embeddings")
    for network in (model.model, clip.cond_stage_model):
        network.requires_grad_(False)  # as the host's own patching leaves them
    return {"model": model, "clip": clip,
            "vae": _make_vae(training_models.TEXT[name][2])}


def _make_vae(channels: int) -> Any:
    """A VAE that the host recognises in a checkpoint; the real one in small would not be."""
    made = comfy.taesd.taesd.TAESD(latent_channels=channels)
    return comfy.sd.VAE(sd=random_weights.fill(made.state_dict(), torch.float32, "vae.",
                                               gain=2.0 ** 0.5))


def encoded_set(folder: Path, name: str, clip: Any, captions: tuple[str, ...], seed: int = 0,
                trigger: str = TRIGGER,
                sizes: tuple[tuple[int, int], ...] | None = None) -> TrainingSet:
    """Random latents with captions that a CLIP has encoded, class captions and face points too."""
    made = training_models.make_training_set(folder / f"photos {seed}", name,
                                             sizes or ((16, 16),) * len(captions), seed=seed)
    texts = {text: text for text in ("", CLASS_CAPTION, *captions)}
    files = {}
    for number, text in enumerate(texts):
        files[text] = made.folder / f"{name}_caption_{number}.safetensors"
        write_conditioning(files[text], clip.encode_from_tokens_scheduled(clip.tokenize(text)))
    points = ((90.0, 50.0), (74.0, 50.0), (38.0, 50.0), (54.0, 50.0), (64.0, 78.0))
    items = tuple(dataclasses.replace(item, caption=caption, conditioning_key=caption,
                                      class_key=CLASS_CAPTION, points=points)
                  for item, caption in zip(made.items, captions, strict=True))
    return dataclasses.replace(made, items=items, conditionings=files, texts=texts,
                               trigger=trigger, key=f"{made.key} {captions}")


def make_job(name: str, folder: Path, recipe: Recipe, *, photos: int = 3, classes: int = 0,
             seed: int = 1, sizes: tuple[tuple[int, int], ...] | None = None,
             **fields: Any) -> Job:
    """A job that any technique can run, on one of the tiny architectures.

    Args:
        sizes: of the photos' latents.
    """
    parts = {**shared(name), **{part: fields.pop(part) for part in ("model", "clip", "vae")
                                if part in fields}}
    captions = tuple(f"a photo of {TRIGGER} {NOUN}, {place}" for place in PLACES[:photos])
    with torch.inference_mode():
        photo_set = encoded_set(folder, name, parts["clip"], captions, sizes=sizes)
        class_set = None if not classes else encoded_set(
            folder, name, parts["clip"], (CLASS_CAPTION,) * classes, seed=9, trigger="")
    made = {"training_set": photo_set, "subject": SUBJECT, "recipe": recipe, "seed": seed,
            "name": "ann", "lora_folder": folder / "loras", "work_folder": folder / "work",
            "class_set": class_set}
    return Job(**{**made, **parts, **fields})


def ignore(result: Any) -> None:
    """What hears of steps and says nothing."""


def cancel_after(steps: int) -> Callable[[Any], None]:
    """What hears of steps and presses cancel after one of them."""
    def on_step(result: Any) -> None:
        if result.step == steps:
            raise runtime.Interrupted

    return on_step


def stored(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Everything in a file."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).clone() for key in file.keys()}, file.metadata()
