"""CLIP-T through the host's own CLIP classes, against transformers' CLIPModel."""

from __future__ import annotations

import dataclasses
import json
import math

import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
import numpy as np
import pytest
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.scoring.score import prompt as prompts
from likeness.nodes.scoring.score.prompt import Clip, plain_prompt, prompt_fit

WIDTH, SIDE = 64, 64
TEXT = {"hidden_size": WIDTH, "num_attention_heads": 4, "num_hidden_layers": 3,
        "intermediate_size": 96, "hidden_act": "quick_gelu", "max_position_embeddings": 77,
        "eos_token_id": 49407, "vocab_size": 49408}
VISION = {"hidden_size": 80, "num_attention_heads": 4, "num_hidden_layers": 3, "image_size": SIDE,
          "intermediate_size": 96, "patch_size": 16, "num_channels": 3, "hidden_act": "quick_gelu"}
PROMPT = "a studio portrait of a man, soft (window:1.3) light"


@pytest.fixture(scope="module")
def reference():
    """A tiny CLIP of transformers' with random weights."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    config = CLIPConfig(text_config={**TEXT, "bos_token_id": 49406, "pad_token_id": 1},
                        vision_config=VISION, projection_dim=WIDTH)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
            parameter.copy_(parameter.half().float())  # the host may store half precision
    return model


@pytest.fixture(scope="module")
def vision(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("vision") / "config.json"
    path.write_text(json.dumps({**VISION, "projection_dim": WIDTH, "layer_norm_eps": 1e-5,
                                "model_type": "clip_vision_model"}))
    model = comfy.clip_vision.ClipVisionModel(str(path))
    missing, _ = model.load_sd({name: value for name, value in reference.state_dict().items()
                                if name.startswith(("vision_model.", "visual_projection."))})
    assert not missing
    return model


@pytest.fixture(scope="module")
def clip(reference):
    """Stable Diffusion 1.5's CLIP class of the host, whose pooled text is not projected."""
    class Target:
        clip = comfy.sd1_clip.SD1ClipModel
        tokenizer = comfy.sd1_clip.SD1Tokenizer
        params = {}

    cpu = torch.device("cpu")
    model = comfy.sd.CLIP(Target, model_options={
        "clip_l_model_config": TEXT, "dtype": torch.float32, "load_device": cpu,
        "offload_device": cpu})
    missing, _ = model.cond_stage_model.clip_l.load_sd(
        {name: value for name, value in reference.state_dict().items()
         if name.startswith(("text_model.", "text_projection."))})
    assert not missing
    return model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1))


def expected(reference, clip, images, text) -> np.ndarray:
    """Cosines (B,) as transformers computes them from the same tokens and pixels."""
    tokens = [entry[0] for entry in clip.tokenize(text)["l"][0]]
    pixels = comfy.clip_vision.clip_preprocess(images, size=SIDE)
    with torch.no_grad():
        out = reference(input_ids=torch.tensor([tokens]), pixel_values=pixels)
    return (out.logits_per_image[:, 0] / reference.logit_scale.exp()).detach().numpy()


def test_the_cosines_are_those_of_transformers(reference, vision, clip, images):
    seen = prompts.image_embeddings(vision, images)
    text = prompts.text_embedding(clip, "clip_l", PROMPT)
    assert np.allclose((seen @ text).numpy(), expected(reference, clip, images, PROMPT), atol=1e-5)


def test_what_the_host_gives_unasked_is_not_comparable(reference, vision, clip, images):
    """Its pooled text lacks the projection: the width agrees, the cosines do not."""
    with torch.no_grad():
        _, pooled = clip.encode_from_tokens(clip.tokenize(PROMPT), return_pooled=True)
    unprojected = torch.nn.functional.normalize(pooled[0].float(), dim=0)
    found = (prompts.image_embeddings(vision, images) @ unprojected).numpy()
    assert not np.allclose(found, expected(reference, clip, images, PROMPT), atol=1e-2)


def test_measuring_leaves_the_hosts_clip_as_it_was(clip):
    def encode():
        with torch.no_grad():
            return clip.encode_from_tokens(clip.tokenize(PROMPT), return_pooled=True)[1]

    before = encode()
    prompts.text_embedding(clip, "clip_l", PROMPT)
    assert clip.cond_stage_model.clip_l.return_projected_pooled is False
    assert torch.equal(encode(), before)


def test_many_pictures_are_seen_in_parts_and_in_order(vision, images, monkeypatch):
    whole = prompts.image_embeddings(vision, images)
    monkeypatch.setattr(prompts, "_CHUNK", 2)
    asked = []
    parts = prompts.image_embeddings(vision, images, lambda: asked.append(1))
    assert torch.allclose(whole, parts, atol=1e-6)
    assert len(asked) == 2


def test_towers_of_unlike_width_are_refused(clip, vision, images, obama):
    narrow = WideVision(vision, 48)
    with pytest.raises(LikenessError, match="width 48.*clip_l of width 64"):
        prompt_fit(images, Clip(narrow, clip), PROMPT, obama)


class Unknowing:
    """The same tower, but of all pictures it sees one that says as much of soup as of a face."""

    def __init__(self, vision, direction) -> None:
        self.vision, self.direction = vision, direction

    def encode_image(self, images):
        seen = self.vision.encode_image(images)["image_embeds"]
        return {"image_embeds": seen - (seen @ self.direction)[:, None] * self.direction}


def test_towers_that_do_not_know_each_other_are_refused(clip, vision, images, obama):
    """What tells faces from other things in the text tower is nothing to this vision tower."""
    faces, others = (torch.stack([prompts.text_embedding(clip, "clip_l", text) for text in texts])
                     for texts in (prompts._OF_FACES, prompts._OF_OTHERS))
    direction = torch.nn.functional.normalize(faces.mean(0) - others.mean(0), dim=0)
    with pytest.raises(LikenessError, match="do not belong together.*text projection"):
        prompt_fit(images, Clip(Unknowing(vision, direction), clip), PROMPT, obama)


def test_a_projection_of_no_numbers_is_refused(clip, vision, images, obama):
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    kept = weight.detach().clone()
    try:
        weight.data.fill_(math.nan)
        with pytest.raises(LikenessError, match="do not belong together"):
            prompt_fit(images, Clip(vision, clip), PROMPT, obama)
    finally:
        weight.data.copy_(kept)


def test_a_fit_says_which_words_were_judged_by_whom(clip, vision, images, obama, monkeypatch):
    monkeypatch.setattr(prompts, "check_towers", lambda *args: None)
    fit = prompt_fit(images, Clip(vision, clip), "photo of ohwx man", obama)
    assert (fit.prompt, fit.encoder, len(fit.cosines)) == ("photo of man", "clip_l", 3)
    assert fit.seen.shape == (3, WIDTH)
    assert prompts.mean(fit.cosines) == pytest.approx(sum(fit.cosines) / 3)


def test_an_empty_prompt_is_refused(clip, vision, images, obama):
    with pytest.raises(LikenessError, match="`prompt` is empty"):
        prompt_fit(images, Clip(vision, clip), "  ", obama)


@pytest.mark.parametrize("prompt, judged", [
    ("photo of ohwx man, smiling", "photo of man, smiling"),
    ("ohwx in a suit", "man in a suit"), ("ohwxyz stays", "ohwxyz stays")])
def test_the_trigger_counts_as_the_class_noun(obama, prompt, judged):
    assert plain_prompt(prompt, obama) == judged


def test_a_trigger_with_signs_is_taken_literally(obama):
    odd = dataclasses.replace(obama, trigger="o.wx")
    assert plain_prompt("ohwx man", odd) == "ohwx man"


class WideVision:
    """The same tower, cut to another width."""

    def __init__(self, vision, width: int) -> None:
        self.vision, self.width = vision, width

    def encode_image(self, images):
        return {"image_embeds": self.vision.encode_image(images)["image_embeds"][:, :self.width]}
