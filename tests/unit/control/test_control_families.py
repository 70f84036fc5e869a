"""Families told from loaded networks, and the mode numbers sent to them."""

from __future__ import annotations

import pytest
import torch
from comfy.controlnet import ControlLora
from comfy_extras.nodes_controlnet import SetUnionControlNetType
from likeness.nodes.control.families import KINDS, family_of, known_kinds, mode_number
from likeness.nodes.errors import LikenessError
from likeness.nodes.style.catalog import styles


def test_unet_layouts_are_told_by_their_text_width(unet_control):
    assert family_of(unet_control(context=768)).id == "sd15"
    assert family_of(unet_control(context=1024)).id == "sd2"
    assert family_of(unet_control(context=2048, adm=16)).id == "sdxl"


def test_an_sdxl_union_is_told_by_its_task_embedding(unet_control):
    assert family_of(unet_control(context=2048, adm=16, union=6)).id == "sdxl_union"


def test_flux_layouts_are_told_apart(flux_control):
    assert family_of(flux_control(modes=10)).id == "flux_union"
    assert family_of(flux_control(double=6, single=0)).id == "flux_union_pro_2"
    assert family_of(flux_control(double=6, single=0, channels=17)).id == "flux"
    assert family_of(flux_control(double=5, single=10)).id == "flux"
    assert family_of(flux_control(double=6, single=0, latent=False)).id == "flux"


def test_sd3_layouts_and_adapters_are_told_apart(sd3_control, sd35_control, t2i_control):
    assert family_of(sd3_control).id == "sd3"
    assert family_of(sd35_control).id == "sd35"
    assert family_of(t2i_control).id == "t2i"


def test_qwen_layouts_are_told_apart(qwen_control):
    union = qwen_control()
    assert family_of(union).id == "qwen_union"
    assert known_kinds(family_of(union), union) == ("canny", "soft edge", "depth", "pose")
    assert family_of(qwen_control(4)).id == "qwen"


def test_a_control_lora_is_told_before_its_network_is_built():
    weights = {"lora_controlnet": torch.zeros(0), "zero_convs.0.0.weight": torch.zeros(1)}
    assert family_of(ControlLora(weights)).id == "lora"
    weights["label_emb.0.0.bias"] = torch.zeros(1)
    assert family_of(ControlLora(weights)).id == "sdxl_lora"


def test_a_network_of_a_foreign_layout_is_named_unknown():
    assert family_of(object()).id == "unknown"


@pytest.mark.parametrize(("kind", "number"), [
    ("pose", 0), ("depth", 1), ("soft edge", 2), ("scribble", 2), ("canny", 3), ("lineart", 3),
    ("normal", 4), ("segment", 5), ("tile", 6), ("repaint", 7)])
def test_the_sdxl_union_gets_the_numbers_of_xinsir(kind, number, unet_control):
    net = unet_control(context=2048, adm=16, union=8)
    assert mode_number(family_of(net), net, kind) == number


@pytest.mark.parametrize(("kind", "number"), [
    ("canny", 0), ("tile", 1), ("depth", 2), ("blur", 3), ("pose", 4), ("gray", 5),
    ("low quality", 6)])
def test_the_flux_union_gets_the_numbers_of_instantx(kind, number, flux_control):
    net = flux_control(modes=10)
    assert mode_number(family_of(net), net, kind) == number


def test_a_six_mode_sdxl_union_refuses_the_promax_kinds(unet_control):
    net = unet_control(context=2048, adm=16, union=6)
    with pytest.raises(LikenessError, match="SDXL union.*`tile`.*pose, depth.*segment"):
        mode_number(family_of(net), net, "tile")


def test_a_face_mesh_on_a_union_is_refused_with_the_kinds_it_knows(flux_control):
    net = flux_control(modes=10)
    with pytest.raises(LikenessError, match="FLUX union.*`face mesh`.*canny, tile, depth"):
        mode_number(family_of(net), net, "face mesh")


def test_union_pro_2_takes_its_kinds_without_a_number(flux_control):
    net = flux_control(double=6, single=0)
    assert mode_number(family_of(net), net, "pose") is None
    with pytest.raises(LikenessError, match="`tile`"):
        mode_number(family_of(net), net, "tile")


def test_a_union_must_be_told_the_kind(unet_control):
    net = unet_control(context=2048, adm=16, union=8)
    with pytest.raises(LikenessError, match="must be told"):
        mode_number(family_of(net), net, "auto")


def test_auto_keeps_a_type_that_was_set_before(unet_control):
    net = unet_control(context=2048, adm=16, union=8)
    typed = SetUnionControlNetType.execute(net, "depth").result[0]
    assert mode_number(family_of(typed), typed, "auto") is None


def test_a_single_purpose_network_takes_every_kind(unet_control):
    net = unet_control()
    assert all(mode_number(family_of(net), net, kind) is None for kind in KINDS)
    assert known_kinds(family_of(net), net) == KINDS[1:]


def test_a_kind_that_is_no_kind_is_refused(unet_control):
    net = unet_control()
    with pytest.raises(LikenessError, match="`kind` must be one of"):
        mode_number(family_of(net), net, "openpose")


def test_every_strength_of_a_style_is_for_a_known_kind():
    assert all(kind in KINDS for style in styles().values() for kind in style.control)
