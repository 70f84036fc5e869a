"""Host CLIP objects with small random text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import torch
import training_models

from launcher.tiny.checkpoints import model_config

# Encoders of each architecture's tiny CLIP, in the tokenizer's order.
ENCODERS = {"sd15": ("clip_l",), "sdxl": ("clip_g", "clip_l"), "sd3": ("clip_g", "clip_l"),
            "flux": ("clip_l", "t5xxl")}
_PRESENT = {f"text_encoders.{encoder}.transformer.text_model.final_layer_norm.weight": None
            for encoder in ("clip_l", "clip_g")}


def make_clip(name: str, folder: Path, *, dtype: torch.dtype = torch.float32,
              seed: int = 0) -> Any:
    """A CLIP with random weights on the CPU.

    Args:
        folder: the host's embeddings folder.
        dtype: how weights are stored.
    """
    target = model_config(name).clip_target(_PRESENT)
    clip = comfy.sd.CLIP(target, embedding_directory=[str(folder)],
                         model_options={"dtype": dtype, "load_device": training_models.CPU,
                                        "offload_device": training_models.CPU})
    training_models.fill(clip.cond_stage_model, seed)
    return clip


def stock_encode(clip: Any, text: str) -> torch.Tensor:
    """What the host's own text node makes of a text: tokens and pooled text, one long row."""
    return flat(clip.encode_from_tokens_scheduled(clip.tokenize(text)))


def flat(conditioning: Any) -> torch.Tensor:
    """A conditioning as one row."""
    (cond, options), = conditioning
    return torch.cat([cond.flatten(), options["pooled_output"].flatten()])
