"""Reading face adapter files: what they are is told from their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.identity.adapter import Kind, parse_adapter, read_adapter
from likeness.nodes.identity.recogniser import plus_shortcut, recogniser_of, wants_normed
from safetensors.torch import save_file

KNOWN = {"dlib": 128, "buffalo_l": 512, "antelopev2": 512}


def flat(content: dict[str, dict]) -> dict[str, torch.Tensor]:
    return {f"{section}.{key}": value.contiguous() for section, part in content.items()
            for key, value in part.items()}


def test_a_bin_file_and_a_safetensors_file_read_the_same(sd15, tools, tmp_path):
    content = tools["adapter"](sd15)
    torch.save(content, tmp_path / "face.bin")
    save_file(flat(content), tmp_path / "face.safetensors")
    first, second = (read_adapter(tmp_path / name, runtime.load_weights)
                     for name in ("face.bin", "face.safetensors"))
    assert (first.kind, first.tokens, first.context) == (second.kind, second.tokens, 768)
    for ours, theirs in zip(first.pairs, second.pairs, strict=True):
        assert torch.equal(ours.key, theirs.key) and torch.equal(ours.value, theirs.value)
    assert first.lora.keys() == second.lora.keys()


@pytest.mark.parametrize("options,kind,tokens", [
    ({}, Kind.FACEID, 4), ({"plus": True}, Kind.PLUS, 4),
    ({"lora": False, "tokens": 16}, Kind.PORTRAIT, 16)])
def test_the_kind_is_told_from_the_keys(sd15, tools, options, kind, tokens):
    adapter = parse_adapter(tools["adapter"](sd15, **options), "renamed.bin")
    assert (adapter.kind, adapter.tokens) == (kind, tokens)


@pytest.mark.parametrize("family,name,layers", [("sd15", "SD1.5", 16), ("sdxl", "SDXL", 70)])
def test_family_and_layers_are_those_of_the_real_unets(request, tools, family, name, layers):
    model = request.getfixturevalue(family)
    adapter = parse_adapter(tools["adapter"](model), "a.bin")
    assert (adapter.family, len(adapter.pairs), len(adapter.lora)) == (name, layers, layers * 8)


def test_layers_are_ordered_by_number_and_not_by_text(sd15, tools):
    content = tools["adapter"](sd15)
    shuffled = {**content, "ip_adapter": dict(sorted(content["ip_adapter"].items()))}
    adapter = parse_adapter(shuffled, "a.bin")
    for index, pair in enumerate(adapter.pairs):
        assert torch.equal(pair.key, content["ip_adapter"][f"{2 * index + 1}.to_k_ip.weight"])


@pytest.mark.parametrize("projection,words", [
    ({"latents": (1, 16, 8), "proj_in.weight": (8, 512)}, "InstantID-like Resampler"),
    ({"latents": (1, 16, 8), "proj_in.weight": (8, 1280)}, "IP-Adapter Plus"),
    ({"proj.weight": (8, 8), "norm.weight": (8,)}, "plain IP-Adapter"),
    ({"proj.0.weight": (8, 8), "proj.2.weight": (8, 8), "proj.3.weight": (8,)}, "full-face"),
    ({"something.weight": (8, 8)}, "unknown layout")])
def test_other_adapters_are_refused_by_what_they_are(projection, words):
    content = {"image_proj": {key: torch.zeros(shape) for key, shape in projection.items()},
               "ip_adapter": {"1.to_k_ip.weight": torch.zeros(8, 8)}}
    with pytest.raises(LikenessError, match=words):
        parse_adapter(content, "other.bin")


def test_a_checkpoint_is_no_adapter():
    with pytest.raises(LikenessError, match="`model.safetensors` is no IP-Adapter file"):
        parse_adapter({"model.diffusion_model.out.0.weight": torch.zeros(1)}, "model.safetensors")


@pytest.mark.parametrize("lost", ["3.to_v_ip.weight", "7.to_q_lora.up.weight"])
def test_a_missing_tensor_is_named(sd15, tools, lost):
    content = tools["adapter"](sd15)
    del content["ip_adapter"][lost]
    with pytest.raises(LikenessError, match=f"damaged: `ip_adapter.{lost.split('_')[0]}"):
        parse_adapter(content, "a.bin")


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.bin"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"\x80\x04 not weights at all")
    with pytest.raises(LikenessError, match=f"`{name}` cannot be read .*get it again"):
        read_adapter(tmp_path / name, runtime.load_weights)


def adapter_of_width(sd15: Any, tools: Any, width: int, **metadata: str) -> Any:
    return parse_adapter(tools["adapter"](sd15, id_width=width), "a.bin", metadata)


@pytest.mark.parametrize("width,expected", [(512, "buffalo_l"), (128, "dlib")])
def test_auto_takes_the_recogniser_that_gives_the_width(sd15, tools, width, expected):
    adapter = adapter_of_width(sd15, tools, width)
    assert recogniser_of(adapter, "auto", KNOWN, "a.bin") == expected


def test_the_files_own_note_outranks_the_width(sd15, tools):
    adapter = adapter_of_width(sd15, tools, 512, recogniser="antelopev2")
    assert recogniser_of(adapter, "auto", KNOWN, "a.bin") == "antelopev2"


def test_the_users_choice_outranks_the_note(sd15, tools):
    adapter = adapter_of_width(sd15, tools, 512, recogniser="antelopev2")
    assert recogniser_of(adapter, "buffalo_l", KNOWN, "a.bin") == "buffalo_l"


@pytest.mark.parametrize("width,chosen,words", [
    (512, "dlib", "width 512, `dlib` gives 128"),
    (512, "facenet", "needs the recogniser `facenet`"),
    (256, "auto", "width 256, which no known recogniser gives")])
def test_a_recogniser_that_cannot_be_right_is_refused(sd15, tools, width, chosen, words):
    with pytest.raises(LikenessError, match=words):
        recogniser_of(adapter_of_width(sd15, tools, width), chosen, KNOWN, "a.bin")


@pytest.mark.parametrize("name,chosen,metadata,expected", [
    ("faceid.bin", "auto", {}, True), ("portrait_unnorm.bin", "auto", {}, False),
    ("faceid.bin", "raw", {}, False), ("faceid.bin", "auto", {"embedding": "raw"}, False)])
def test_unit_embeddings_unless_something_says_raw(sd15, tools, name, chosen, metadata, expected):
    adapter = adapter_of_width(sd15, tools, 512, **metadata)
    assert wants_normed(adapter, chosen, name) is expected


@pytest.mark.parametrize("name,chosen,expected", [
    ("ip-adapter-faceid-plusv2_sd15.bin", "auto", True),
    ("ip-adapter-faceid-plus_sd15.bin", "auto", False),
    ("ip-adapter-faceid-plusv2_sd15.bin", "v1", False), ("mine.bin", "v2", True)])
def test_the_plus_version_is_the_choice_or_else_the_names(sd15, tools, name, chosen, expected):
    adapter = parse_adapter(tools["adapter"](sd15, plus=True), name)
    assert plus_shortcut(adapter, chosen, name) is expected


def test_a_renamed_plus_file_asks_for_its_version(sd15, tools):
    adapter = parse_adapter(tools["adapter"](sd15, plus=True), "mine.bin")
    with pytest.raises(LikenessError, match="set `plus_version` to v1 or v2"):
        plus_shortcut(adapter, "auto", "mine.bin")
