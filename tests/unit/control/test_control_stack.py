"""The stack against core's chained apply nodes, by sampling with small real networks."""

from __future__ import annotations

import dataclasses
import json

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_controlnet import SetUnionControlNetType
from likeness.nodes.control.families import text_width
from likeness.nodes.control.nodes import LikenessApplyControlStack, LikenessControlStack
from likeness.nodes.control.stack import apply_stack, control_entry
from likeness.nodes.errors import LikenessError
from likeness.nodes.style.catalog import style

import nodes as core


@pytest.fixture(scope="module")
def conditioning() -> tuple[list, list]:
    generator = torch.Generator().manual_seed(0)
    return tuple([[torch.randn(1, 8, 768, generator=generator), {}]] for _ in range(2))


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 128, 128, 3, generator=generator) for _ in range(3)]


@pytest.fixture(scope="module")
def nets(unet_control) -> list:
    return [unet_control(seed) for seed in (11, 12, 13)]


def sample(model, positive, negative, seed: int = 5) -> torch.Tensor:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    return comfy.sample.sample(model, noise, 4, 3.0, "euler", "normal", positive, negative,
                               torch.zeros(1, 4, 16, 16), disable_pbar=True, seed=seed)


def core_chain(positive, negative, links):
    for net, image, strength, start, end in links:
        positive, negative = core.ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, net, image, strength, start, end)
    return positive, negative


def stacked(links, kinds=("face mesh", "pose", "depth")):
    stack = ()
    for (net, image, strength, start, end), kind in zip(links, kinds, strict=False):
        stack = LikenessControlStack.execute(net, image, kind, strength, start, end,
                                             stack).result[0]
    return stack


def links_of(nets, images):
    return [(nets[0], images[0], 0.9, 0.0, 1.0), (nets[1], images[1], 0.6, 0.0, 0.5),
            (nets[2], images[2], 0.4, 0.25, 1.0)]


def test_three_controls_sample_as_cores_chain_bit_for_bit(tiny_model, conditioning, nets, images):
    links = links_of(nets, images)
    ours = sample(tiny_model, *LikenessApplyControlStack.execute(
        *conditioning, stacked(links)).result[:2])
    theirs = sample(tiny_model, *core_chain(*conditioning, links))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, sample(tiny_model, *conditioning))


def test_every_control_and_its_times_change_the_picture(tiny_model, conditioning, nets, images):
    """So that the equality above is of something."""
    links = links_of(nets, images)
    whole = sample(tiny_model, *apply_stack(*conditioning, stacked(links)))
    for index in range(3):
        shorter = links[:index] + links[index + 1:]
        assert not torch.equal(whole, sample(tiny_model,
                                             *apply_stack(*conditioning, stacked(shorter))))
    throughout = [(*link[:3], 0.0, 1.0) for link in links]
    assert not torch.equal(whole, sample(tiny_model,
                                         *apply_stack(*conditioning, stacked(throughout))))


def test_a_second_run_gives_the_same_picture(tiny_model, conditioning, nets, images):
    stack = stacked(links_of(nets, images))
    first, second = (sample(tiny_model, *apply_stack(*conditioning, stack)) for _ in range(2))
    assert torch.equal(first, second)


def test_one_network_used_twice_keeps_both_images(tiny_model, conditioning, nets, images):
    links = [(nets[0], images[0], 0.7, 0.0, 1.0), (nets[0], images[1], 0.5, 0.0, 1.0)]
    ours = sample(tiny_model, *apply_stack(*conditioning, stacked(links)))
    assert torch.equal(ours, sample(tiny_model, *core_chain(*conditioning, links)))


def test_positive_and_negative_share_each_network(conditioning, nets, images):
    positive, negative = apply_stack(*conditioning, stacked(links_of(nets, images)))
    control = positive[0][1]["control"]
    assert control is negative[0][1]["control"]
    assert positive[0][1]["control_apply_to_uncond"] is False
    assert control.strength == 0.4 and control.previous_controlnet.strength == 0.6
    assert control.previous_controlnet.previous_controlnet.previous_controlnet is None


def test_a_chain_that_was_there_before_goes_on(conditioning, nets, images):
    links = links_of(nets, images)
    before = core_chain(*conditioning, links[:1])
    positive, negative = apply_stack(*before, stacked(links[1:], ("pose", "depth")))
    first = positive[0][1]["control"].previous_controlnet.previous_controlnet
    assert first is before[0][0][1]["control"]
    assert positive[0][1]["control"] is negative[0][1]["control"]


def test_conditionings_with_chains_of_their_own_keep_them_apart(conditioning, nets, images):
    links = links_of(nets, images)
    positive, _ = core_chain(*conditioning, links[:1])
    _, negative = core_chain(*conditioning, links[1:2])
    ours = apply_stack(positive, negative, stacked(links[2:], ("depth",)))
    controls = [side[0][1]["control"] for side in ours]
    assert controls[0] is not controls[1]
    assert [control.previous_controlnet for control in controls] == [
        positive[0][1]["control"], negative[0][1]["control"]]


def test_strength_zero_leaves_the_network_out(conditioning, nets, images):
    links = links_of(nets, images)
    links[1] = (*links[1][:2], 0.0, *links[1][3:])
    positive, _ = apply_stack(*conditioning, stacked(links))
    assert positive[0][1]["control"].previous_controlnet.strength == 0.9
    only_zero = stacked([(nets[0], images[0], 0.0, 0.0, 1.0)])
    assert apply_stack(*conditioning, only_zero) == conditioning


def test_nothing_that_came_in_is_changed(conditioning, nets, images, unet_control):
    union = unet_control(channels=320, context=768, union=8)
    entry = control_entry(union, images[0], "depth", 0.5)
    stack = (entry,)
    apply_stack(*conditioning, stack)
    assert union.extra_args == {} and union.cond_hint_original is None and union.strength == 1.0
    assert conditioning[0][0][1] == {} and conditioning[1][0][1] == {}
    assert stack == (entry,)


def test_a_stack_grows_by_a_new_one(nets, images):
    first = stacked(links_of(nets, images)[:1])
    second = LikenessControlStack.execute(nets[1], images[1], "pose", 0.5, 0.0, 1.0,
                                          first).result[0]
    assert len(first) == 1 and len(second) == 2 and second[0] is first[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        first[0].strength = 1.0


def test_a_style_scales_the_strength_of_its_kinds(conditioning, nets, images):
    chosen = dataclasses.replace(style("corporate"), control={"pose": 0.5})
    output = LikenessApplyControlStack.execute(
        *conditioning, stacked(links_of(nets, images)[:2]), style=chosen)
    control = output.result[0][0][1]["control"]
    assert control.strength == pytest.approx(0.3)
    assert control.previous_controlnet.strength == 0.9
    assert [row["strength"] for row in json.loads(output.result[2])] == [0.9, 0.3]


@pytest.mark.parametrize(("kind", "core_type"), [
    ("pose", "openpose"), ("depth", "depth"), ("soft edge", "hed/pidi/scribble/ted"),
    ("canny", "canny/lineart/anime_lineart/mlsd"), ("normal", "normal"), ("tile", "tile")])
def test_the_sdxl_union_gives_cores_output_for_each_type(kind, core_type, unet_control, images):
    """Core's own map is right for this family."""
    union = unet_control(channels=320, context=64, adm=16, union=8)
    ours = control_of(union, images[0], kind)
    typed = SetUnionControlNetType.execute(union, core_type).result[0]
    theirs = core_control(typed, images[0])
    assert same(run_unet(ours), run_unet(theirs))
    assert not same(run_unet(ours), run_unet(core_control(union, images[0])))


@pytest.mark.parametrize(("kind", "number"), [("canny", 0), ("depth", 2), ("pose", 4)])
def test_the_flux_union_runs_in_the_mode_it_was_trained_with(kind, number, flux_control, flux_vae,
                                                             images):
    union = flux_control(modes=7)
    ours = control_of(union, images[0], kind, flux_vae)
    assert ours.extra_args == {"control_type": [number]}
    outputs = {mode: run_flux(core_control(with_mode(union, mode), images[0], flux_vae))
               for mode in (0, 2, 4)}
    assert same(run_flux(ours), outputs[number])
    others = [output for mode, output in outputs.items() if mode != number]
    assert not any(same(run_flux(ours), other) for other in others)


def test_union_pro_2_runs_without_a_mode(flux_control, flux_vae, images):
    union = flux_control(double=6, single=0)
    ours = control_of(union, images[0], "pose", flux_vae)
    assert ours.extra_args == {}
    assert same(run_flux(ours), run_flux(core_control(union, images[0], flux_vae)))


def test_a_network_that_reads_latents_needs_a_vae(flux_control, images, conditioning):
    stack = (control_entry(flux_control(modes=7), images[0], "pose", 0.5),)
    with pytest.raises(LikenessError, match="FLUX union ControlNet.*connect the model's VAE"):
        apply_stack(*conditioning, stack)


@pytest.mark.parametrize(("made", "title"), [
    ({"context": 2048, "adm": 16}, "SDXL ControlNet"), ({"context": 1024}, "SD2 ControlNet")])
def test_a_network_of_another_model_is_refused_before_sampling(unet_control, images, conditioning,
                                                               made, title):
    stack = (control_entry(unet_control(**made), images[0], "pose", 0.5),)
    with pytest.raises(LikenessError, match=f"^The {title} for `pose` belongs to another model: it "
                                            f"reads prompts {made['context']} numbers wide, and "
                                            "these are 768 wide; load a control network"):
        apply_stack(*conditioning, stack)
    (entry,) = stack
    apply_stack(*conditioning, (dataclasses.replace(entry, strength=0.0),))  # it never acts


def test_an_end_before_the_start_is_refused(nets, images):
    with pytest.raises(LikenessError, match="`start` must be smaller"):
        control_entry(nets[0], images[0], "pose", 1.0, 0.5, 0.5)


def test_an_image_with_alpha_is_refused(nets):
    with pytest.raises(LikenessError, match="4 channels instead of 3"):
        control_entry(nets[0], torch.zeros(1, 64, 64, 4), "pose", 1.0)


def test_the_stack_node_reports_family_kind_and_mode(unet_control, images):
    union = unet_control(channels=320, context=64, adm=16, union=8)
    output = LikenessControlStack.execute(union, images[0], "canny", 0.7, 0.0, 0.9)
    row, = json.loads(output.result[1])
    assert (row["family"], row["kind"], row["mode"]) == ("sdxl_union", "canny", 3)
    assert (row["strength"], row["start"], row["end"]) == (0.7, 0.0, 0.9)


TEXT = [[torch.zeros(1, 4, 16), {}]]


def control_of(net, image, kind, vae=None):
    stack = (control_entry(net, image, kind, 1.0),)
    text = [[torch.zeros(1, 4, text_width(net)), {}]]
    return apply_stack(text, text, stack, vae)[0][0][1]["control"]


def core_control(net, image, vae=None):
    return core.ControlNetApplyAdvanced().apply_controlnet(
        TEXT, TEXT, net, image, 1.0, 0.0, 1.0, vae=vae)[0][0][1]["control"]


def with_mode(net, mode):
    net = net.copy()
    net.set_extra_arg("control_type", [mode])
    return net


class Sampling:
    """What a control network asks the model's sampling for."""

    @staticmethod
    def timestep(sigma):
        return sigma

    @staticmethod
    def calculate_input(sigma, noise):
        return noise


def run(control, latent, cond) -> list[torch.Tensor]:
    control.model_sampling_current = Sampling
    control.timestep_range = None
    out = control.get_control(latent, torch.tensor([0.5]), cond, 1, {})
    return [tensor for part in out.values() for tensor in part if tensor is not None]


def run_unet(control) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    cond = {"c_crossattn": torch.randn(1, 4, 64, generator=generator),
            "y": torch.randn(1, 16, generator=generator)}
    return run(control, torch.randn(1, 4, 8, 8, generator=generator), cond)


def run_flux(control) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    cond = {"c_crossattn": torch.randn(1, 4, 16, generator=generator),
            "y": torch.randn(1, 8, generator=generator)}
    return run(control, torch.randn(1, 16, 4, 4, generator=generator), cond)


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return len(ours) == len(theirs) > 0 and all(
        torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
