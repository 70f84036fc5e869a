"""Injection on whole models, sampled by the host, against the formula written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.identity.adapter import parse_adapter
from likeness.nodes.identity.blend import Combine, FaceTokens, face_tokens
from likeness.nodes.identity.inject import FaceTerm, inject
from likeness.nodes.patching import SigmaWindow, attention_patch, cross_attentions


@pytest.fixture(scope="module")
def adapter(sd15, tools) -> Any:
    return parse_adapter(tools["adapter"](sd15), "face.bin")


@pytest.fixture(scope="module")
def tokens(adapter) -> FaceTokens:
    generator = torch.Generator().manual_seed(9)
    return face_tokens(adapter, torch.randn(2, 512, generator=generator), Combine.CONCAT,
                       normed=True)


def attend_by_hand(module: torch.nn.Module, pair: Any, tokens: FaceTokens, weight: float) -> Any:
    """A cross-attention's forward with the face term written out in plain tensor operations."""

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1, module.heads, module.dim_head).transpose(1, 2)

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = split(q), split(k), split(v)
        out = torch.softmax(q @ k.transpose(-1, -2) / module.dim_head ** 0.5, dim=-1) @ v
        return out.transpose(1, 2).flatten(2)

    def forward(x, context=None, value=None, mask=None, transformer_options=None):
        q = module.to_q(x)
        out = attention(q, module.to_k(context), module.to_v(context))
        kinds = transformer_options["cond_or_uncond"]
        rows = [kind for kind in kinds for _ in range(len(x) // len(kinds))]
        face = torch.cat([tokens.nobody if kind == 1 else tokens.face for kind in rows])
        seen = attention(q, face @ pair.key.T, face @ pair.value.T)
        return module.to_out(out + weight * seen)

    return forward


def model_by_hand(model: Any, adapter: Any, tokens: FaceTokens, weight: float,
                  lora_strength: float, tools: Any) -> Any:
    """A copy of a MODEL with the formula in its layers and the LoRA merged into its weights."""
    twin = model.clone()
    # Newer hosts' description of a model has an answer to every name, so that it cannot be copied.
    config = model.model.model_config
    twin.model = copy.deepcopy(model.model, {id(config): config})
    blocks = tools["blocks"](twin)
    for (index, attention, part), low in adapter.lora.items():
        layer = getattr(getattr(blocks[index], attention), part)
        linear = layer[0] if part == "to_out" else layer
        linear.weight.data += lora_strength * low.up @ low.down
    for block, pair in zip(blocks, adapter.pairs, strict=True):
        block.attn2.forward = attend_by_hand(block.attn2, pair, tokens, weight)
    return twin


def assert_same_picture(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.std().item())


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_sampling_equals_the_formula_written_out(request, tools, family):
    model = request.getfixturevalue(family)
    adapter = parse_adapter(tools["adapter"](model), "face.bin")
    tokens = face_tokens(adapter, torch.randn(2, 512), Combine.MEAN, normed=True)
    done = inject(model, adapter, "face.bin", tokens, weight=0.7, lora_strength=0.6)
    expected = tools["denoise"](model_by_hand(model, adapter, tokens, 0.7, 0.6, tools))
    found = tools["denoise"](done.model)
    assert_same_picture(found, expected)
    assert (tools["denoise"](model) - expected).abs().max() > 0.1 * expected.std()
    assert (done.layers, done.lora_weights) == (len(adapter.pairs), len(adapter.lora))


def test_sampling_works_in_inference_mode_and_a_second_run_changes_nothing(
        sd15, tools, adapter, tokens):
    with torch.inference_mode():
        before = tools["denoise"](sd15)
        patched = inject(sd15, adapter, "face.bin", tokens).model
        first = tools["denoise"](patched)
        again = tools["denoise"](inject(sd15, adapter, "face.bin", tokens).model)
        assert torch.equal(tools["denoise"](patched), first)
        assert torch.equal(again, first)
        assert torch.equal(tools["denoise"](sd15), before)


def test_a_window_outside_of_sampling_changes_no_bit(sd15, tools, adapter, tokens):
    # Three steps of the normal schedule visit the shares 0, 1/2 and 1 of sampling.
    between, across = (inject(sd15, adapter, "face.bin", tokens, start=0.1, end=end,
                              lora_strength=0.0).model for end in (0.4, 0.6))
    plain = tools["denoise"](sd15, steps=3)
    assert torch.equal(tools["denoise"](between, steps=3), plain)
    assert not torch.equal(tools["denoise"](across, steps=3), plain)


def test_two_injections_add_up_and_leave_the_first_as_it_was(sd15, tools, adapter, tokens):
    once = inject(sd15, adapter, "face.bin", tokens, weight=0.5, lora_strength=0.0).model
    single = tools["denoise"](once)
    twice = inject(once, adapter, "face.bin", tokens, weight=0.25, lora_strength=0.0)
    sum_ = inject(sd15, adapter, "face.bin", tokens, weight=0.75, lora_strength=0.0).model
    assert_same_picture(tools["denoise"](twice.model), tools["denoise"](sum_))
    assert torch.equal(tools["denoise"](once), single)
    assert twice.chained == twice.layers == 16


def test_another_packs_attention_patch_stays_in_force(sd15, tools, adapter, tokens):
    def mute(q, k, v, extra_options):
        return torch.zeros_like(q)

    first = cross_attentions(sd15)[0].place
    other = sd15.clone()
    other.set_model_attn2_replace(mute, first.block, first.number)
    done = inject(other, adapter, "face.bin", tokens, lora_strength=0.0)
    assert done.chained == 1
    assert attention_patch(done.model, first).previous is mute
    alone = inject(sd15, adapter, "face.bin", tokens, lora_strength=0.0).model
    assert not torch.equal(tools["denoise"](done.model), tools["denoise"](alone))


def term(person: float, nobody: float) -> FaceTerm:
    """A term of one token, so that attention returns its value whatever the query."""
    values = torch.tensor([person, nobody]).reshape(2, 1, 1).expand(2, 1, 8)
    return FaceTerm(torch.zeros(2, 1, 8), values, 0.5, SigmaWindow())


@pytest.mark.parametrize("kinds,expected", [
    ([1, 0], [2, 2, 1, 1]), ([0, 1], [1, 1, 2, 2]), ([0], [1, 1, 1, 1]), ([1], [2, 2, 2, 2]),
    ([0, 0, 1, 1], [1, 1, 2, 2]), ([2, 0], [2, 2, 1, 1])])
def test_conditional_rows_see_the_person_and_all_others_nobody(kinds, expected):
    options = {"sigmas": torch.tensor([1.0]), "cond_or_uncond": kinds, "n_heads": 2,
               "attn_precision": None}
    added = term(2.0, 4.0)(torch.randn(4, 3, 8), options)
    torch.testing.assert_close(added[:, 0, 0], torch.tensor(expected, dtype=torch.float32))


def test_an_8_bit_model_keeps_the_face_in_full_precision():
    assert term(1.0, 2.0).to(torch.float8_e4m3fn).keys.dtype == torch.float32
    assert term(1.0, 2.0).to(torch.bfloat16).keys.dtype == torch.bfloat16


def test_an_adapter_of_the_other_family_names_both(sdxl, adapter, tokens):
    with pytest.raises(LikenessError, match="made for SD1.5 .* this model is SDXL"):
        inject(sdxl, adapter, "face.bin", tokens)


def test_a_file_with_other_layers_names_both_numbers(sd15, tools, tokens):
    content = tools["adapter"](sd15)
    shorter = {key: value for key, value in content["ip_adapter"].items()
               if int(key.split(".")[0]) < 20}
    adapter = parse_adapter({**content, "ip_adapter": shorter}, "short.bin")
    with pytest.raises(LikenessError, match="weights for 10 cross-attentions, this model has 16"):
        inject(sd15, adapter, "short.bin", tokens)


def test_a_file_for_wider_layers_is_refused_before_anything_is_patched(sd15, tools, tokens):
    content = tools["adapter"](sd15)
    for part in ("k", "v"):
        content["ip_adapter"][f"5.to_{part}_ip.weight"] = torch.zeros(640, 768)
    adapter = parse_adapter(content, "wide.bin")
    with pytest.raises(LikenessError, match="gives 640 channels where .*input_blocks.4"):
        inject(sd15, adapter, "wide.bin", tokens)


def test_a_lora_that_does_not_fit_is_refused(sd15, tools, tokens):
    content = tools["adapter"](sd15)
    content["ip_adapter"]["0.to_q_lora.down.weight"] = torch.zeros(2, 999)
    adapter = parse_adapter(content, "wide.bin")
    with pytest.raises(LikenessError, match="LoRA in `wide.bin` does not fit .*attn1.to_q"):
        inject(sd15, adapter, "wide.bin", tokens)
