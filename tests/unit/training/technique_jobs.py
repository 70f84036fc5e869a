"""Whole jobs on tiny models: model, CLIP, VAE, captions that fit, photos and class photos."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import text_models
import torch
import training_models
from likeness.nodes.sockets import Subject, TrainingSet
from likeness.nodes.tensors import write_conditioning
from likeness.nodes.training.job import Job
from likeness.nodes.training.recipes.base import Recipe
from picture_models import make_vae

TRIGGER, NOUN = "ohwx", "woman"
SUBJECT = Subject("Ann", TRIGGER, NOUN, (), (), {}, {}, np.zeros((478, 3)))
CLASS_CAPTION = f"a photo of a {NOUN}"


def encoded_set(folder: Path, name: str, clip: Any, captions: tuple[str, ...],
                seed: int = 0, trigger: str = TRIGGER) -> TrainingSet:
    """Random latents with captions that a CLIP has encoded, class captions and face points too."""
    made = training_models.make_training_set(folder, name, ((16, 16),) * len(captions), seed=seed)
    texts = {text: text for text in ("", CLASS_CAPTION, *captions)}
    files = {}
    for number, text in enumerate(texts):
        files[text] = folder / f"{name}_{seed}_caption_{number}.safetensors"
        write_conditioning(files[text], clip.encode_from_tokens_scheduled(clip.tokenize(text)))
    points = ((90.0, 50.0), (74.0, 50.0), (38.0, 50.0), (54.0, 50.0), (64.0, 78.0))
    items = tuple(dataclasses.replace(item, caption=caption, conditioning_key=caption,
                                      class_key=CLASS_CAPTION, points=points)
                  for item, caption in zip(made.items, captions, strict=True))
    return dataclasses.replace(made, items=items, conditionings=files, texts=texts,
                               trigger=trigger, key=f"{made.key} {captions}")


def make_job(name: str, folder: Path, recipe: Recipe, *, photos: int = 3, classes: int = 0,
             seed: int = 1, **fields: Any) -> Job:
    """A job that any technique can run, on one of the tiny architectures."""
    folder.mkdir(parents=True, exist_ok=True)
    clip = text_models.make_clip(name, folder / "embeddings")
    captions = tuple(f"a photo of {TRIGGER} {NOUN}, {place}"
                     for place in ("indoors", "outdoors", "at night", "smiling")[:photos])
    with torch.inference_mode():
        photo_set = encoded_set(folder, name, clip, captions)
        class_set = None if not classes else encoded_set(
            folder, name, clip, (CLASS_CAPTION,) * classes, seed=9, trigger="")
    return Job(training_models.make_model(name), photo_set, SUBJECT, recipe, seed, "ann",
               folder / "loras", folder / "work", clip=clip,
               vae=make_vae(training_models.TEXT[name][2]), class_set=class_set, **fields)
