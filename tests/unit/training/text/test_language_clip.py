"""A CLIP whose text encoder is a language model learns adapters and words as any other."""

from __future__ import annotations

import comfy.sd
import comfy.supported_models
import pytest
import torch
import training_models
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.text.encoders import TextEncoders

from launcher.tiny.networks import network_config

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
         "num_attention_heads": 2, "num_key_value_heads": 1}
CAPTION = "photo of ohwx man, smiling"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Z-Image's CLIP with a small Qwen3."""
    config = comfy.supported_models.ZImage(network_config("z_image"))
    made = comfy.sd.CLIP(
        config.clip_target({}), embedding_directory=[str(tmp_path_factory.mktemp("words"))],
        model_options={"dtype": torch.float32, "load_device": training_models.CPU,
                       "offload_device": training_models.CPU, "qwen3_4b_model_config": SIZES})
    made.tokenizer.qwen3_4b.embedding_size = SIZES["hidden_size"]
    training_models.fill(made.cond_stage_model)
    return made


def _stock(clip, text: str) -> torch.Tensor:
    with torch.no_grad():
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_adapters_and_words_get_gradients_and_the_clip_stays(clip, checkpointing):
    recipe = LoRARecipe(rank=2, text_encoder=True, tokens=TokenSettings(),
                        gradient_checkpointing=checkpointing)
    before = _stock(clip, CAPTION)
    with torch.inference_mode():
        text = TextEncoders(clip, recipe, "ohwx", "man",
                            generator=torch.Generator().manual_seed(0))
        text.prepare()
        with torch.inference_mode(False), torch.enable_grad(), Scope() as scope:
            text.attach(scope)
            (found, _), = text.encode(CAPTION)
            pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
            (found * pull).sum().backward()
    assert all(layer.up.grad.abs().sum() > 0 for layer in text.adapters.layers.values())
    assert all(rows.grad.abs().sum() > 0 for rows in text.tokens.rows.values())
    assert found.isfinite().all() and not torch.equal(found.detach(), before)
    assert torch.equal(_stock(clip, CAPTION), before)
