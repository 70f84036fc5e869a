"""A tiny text encoder and VAE beside the tiny models, for tests that make whole pictures."""

from __future__ import annotations

import types
from typing import Any

import comfy.sd
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel

CPU = torch.device("cpu")


class _TinyText(SD1ClipModel):
    """CLIP's text encoder with two layers of a width that the tiny SD1.5 takes."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        config = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2,
                  "intermediate_size": 64, "hidden_act": "quick_gelu", "vocab_size": 49408,
                  "max_position_embeddings": 77, "eos_token_id": 49407}
        super().__init__(device, dtype, model_options or {}, clip_model=SDClipModel,
                         textmodel_json_config=config)


def _randomise(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.state_dict().items():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(centre + 0.05 * torch.randn(weight.shape, generator=generator))


def make_clip(seed: int = 1) -> Any:
    """A CLIP whose encodings fit the tiny SD1.5 and, with random weights, FLUX."""
    target = types.SimpleNamespace(params={}, clip=_TinyText, tokenizer=SD1Tokenizer)
    made = comfy.sd.CLIP(target)
    _randomise(made.cond_stage_model, seed)
    return made


def make_vae(channels: int = 4, seed: int = 2) -> Any:
    """A VAE with an eightfold reduction."""
    sizes = {"double_z": True, "z_channels": channels, "resolution": 64, "in_channels": 3,
             "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1,
             "attn_resolutions": [], "dropout": 0.0}
    config = {"params": {"ddconfig": sizes, "embed_dim": channels}}
    vae = comfy.sd.VAE(sd={}, device=CPU, config=config, dtype=torch.float32)
    _randomise(vae.first_stage_model, seed)
    return vae
