"""Pictures sampled inside training: equal to core's, seeded, cancellable, told apart by model."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import comfy.model_management
import picture_models
import pytest
import torch
import training_models
from comfy.weight_adapter.lora import LoRAAdapter
from comfy_extras.nodes_flux import FluxGuidance
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, RescaleCFG
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.tensors import model_key, text_fingerprint
from likeness.nodes.training.pictures import sampling as pictures

import nodes as core

FAST = pictures.Sampling(steps=2, cfg=3.0)


@pytest.fixture(scope="module")
def clip():
    return picture_models.make_clip()


@pytest.fixture(scope="module")
def model():
    return training_models.make_model("sd15")


@pytest.fixture
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _core(model, positive, negative, sampling, seed, channels=4):
    latent = {"samples": torch.zeros(1, channels, 8, 12)}
    return core.common_ksampler(model, seed, sampling.steps, sampling.cfg, sampling.sampler,
                                sampling.scheduler, positive, negative, latent)[0]["samples"]


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde", "uni_pc"])
def test_a_picture_equals_that_of_cores_sampler_node(model, clip, sampler):
    sampling = pictures.Sampling(steps=2, cfg=3.0, sampler=sampler, scheduler="karras")
    positive, negative = (pictures.encode_text(clip, text) for text in ("a man", "blurred"))
    ours = pictures.sample(model, positive, negative, (12, 8), 7, sampling)
    assert torch.equal(ours, _core(model, positive, negative, sampling, 7))


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_flux_is_told_the_guidance_as_cores_node_tells_it(clip):
    model = training_models.make_model("flux")
    text = pictures.encode_text(clip, "a man")
    told = pictures.Sampling(steps=1, cfg=1.0, scheduler="simple", guidance=9.0)
    ours = pictures.sample(model, text, text, (12, 8), 7, told)
    assert ours.shape == (1, 16, 8, 12)
    guided = FluxGuidance.execute(text, 9.0)[0]
    assert torch.equal(ours, _core(model, guided, guided, told, 7, channels=16))


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_the_seed_decides_the_picture_and_the_global_random_state_stays(model, clip):
    text = pictures.encode_text(clip, "a man")
    state = torch.get_rng_state()
    first, again, other = (pictures.sample(model, text, text, (8, 8), seed, FAST)
                           for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=0.1)
    assert torch.equal(torch.get_rng_state(), state)


def test_sampling_outside_inference_mode_keeps_no_graph(clip):
    with torch.inference_mode():
        model = training_models.make_model("sd15")  # as loaded in the executor
        positive = pictures.encode_text(clip, "a man")
    with torch.inference_mode(False), torch.enable_grad():
        latent = pictures.sample(model, positive, positive, (8, 8), 1, FAST)
        pixels = pictures.decode(picture_models.make_vae(), latent)
    assert not latent.requires_grad and pixels.shape == (64, 64, 3)


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_cancel_ends_sampling_at_the_next_step(model, clip):
    text, seen = pictures.encode_text(clip, "a man"), []

    def on_step(done):
        seen.append(done)
        comfy.model_management.interrupt_current_processing(True)

    try:
        with pytest.raises(runtime.Interrupted):
            pictures.sample(model, text, text, (8, 8), 1, pictures.Sampling(steps=6), on_step)
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert seen == [1]


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_a_decoded_picture_is_what_the_host_decodes():
    vae = picture_models.make_vae()
    latent = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    pixels = pictures.decode(vae, latent)
    shown = core.VAEDecode().decode(vae, {"samples": latent})[0]
    assert pixels.shape == (64, 96, 3) and pixels.std() > 1
    assert abs(pixels / 255.0 - shown[0].numpy()).max() <= 0.5 / 255 + 1e-6


def _patched(model, value):
    clone = model.clone()
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    adapter = LoRAAdapter(set(), (torch.full((32, 2), value), torch.full((2, 32), 0.1), 2.0, None,
                                  None, None))
    assert clone.add_patches({key: adapter}, 1.0)
    return clone


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_models_are_told_apart_by_weights_patches_sampling_and_options(model):
    others = [training_models.make_model("sd15", seed=1), _patched(model, 0.1),
              _patched(model, 0.2), ModelSamplingDiscrete().patch(model, "v_prediction", False)[0],
              RescaleCFG().patch(model, 0.5)[0], RescaleCFG().patch(model, 0.7)[0]]
    keys = [model_key(each) for each in (model, *others)]
    assert len(set(keys)) == len(keys)
    assert [model_key(each) for each in (model.clone(), _patched(model, 0.1))] == [
        keys[0], keys[2]]


class _Scaled:
    def __init__(self, scale):
        self.scale = scale
        self._asked = 0

    def __call__(self, q, k, v, extra_options):
        self._asked += 1
        return q * self.scale

    def apply(self, given):
        return given["cond_denoised"]


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_patches_of_nodes_are_told_by_what_they_hold_not_by_what_they_remember(model, clip):
    def patched(scale, method=False, rate=1.0):
        clone = model.clone()
        clone.set_model_attn2_replace(_Scaled(scale), "input", 1)
        if method:
            clone.set_model_sampler_post_cfg_function(_Scaled(scale).apply)
        clone.model_options["likeness_test"] = partial(max, rate)
        return clone

    one = patched(1.0)
    keys = [model_key(each) for each in (one, patched(2.0), patched(1.0, method=True),
                                        patched(2.0, method=True), patched(1.0, rate=2))]
    assert len(set(keys)) == 5
    text = pictures.encode_text(clip, "a man")
    pictures.sample(one, text, text, (8, 8), 1, FAST)
    replaced = one.model_options["transformer_options"]["patches_replace"]["attn2"]
    assert all(patch._asked for patch in replaced.values())
    assert model_key(one) == keys[0] == model_key(patched(1.0))


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_a_model_is_the_same_whether_or_not_its_patches_are_loaded(model):
    patched = _patched(model, 0.1)
    before, base = model_key(patched), model_key(model)
    runtime.load_models([patched])
    assert patched.backup
    assert model_key(patched) == before
    patched.unpatch_model()
    assert model_key(model) == base


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_a_text_encoder_is_the_same_whichever_of_its_clones_is_loaded():
    clip = picture_models.make_clip()
    patched = clip.clone()
    key = next(name for name in clip.patcher.model_state_dict() if name.endswith("q_proj.weight"))
    assert patched.add_patches({key: ("diff", (torch.ones(64, 64),))}, 1.0)
    before = [text_fingerprint(each) for each in (clip, patched)]
    runtime.load_models([patched.patcher])
    assert patched.patcher.backup
    assert [text_fingerprint(each) for each in (clip, patched)] == before
    assert before[0] != before[1]


@pytest.mark.parametrize(("wrong", "name"), [
    ({"steps": 0}, "steps"), ({"cfg": -1.0}, "cfg"), ({"sampler": "best"}, "sampler"),
    ({"scheduler": "best"}, "scheduler")])
def test_sampling_that_cannot_be_is_refused_by_name(wrong, name):
    with pytest.raises(LikenessError, match=f"`{name}` must be"):
        pictures.Sampling(**wrong)


def test_a_missing_encoder_or_decoder_is_named():
    with pytest.raises(LikenessError, match="text encoder"):
        pictures.encode_text(None, "a man")
    with pytest.raises(LikenessError, match="no VAE"):
        pictures.latent_size(None, 64, 64)
    with pytest.raises(LikenessError, match="too small"):
        pictures.latent_size(picture_models.make_vae(), 4, 64)


def test_a_decoder_that_gives_nan_is_named_and_a_lost_model_is_not_blamed_on_it():
    vae = picture_models.make_vae()
    latent = torch.zeros(1, 4, 8, 8)
    lost = SimpleNamespace(decode=lambda given: vae.decode(given) * torch.nan)
    with pytest.raises(LikenessError, match="The VAE gives NaN in place of a picture"):
        pictures.decode(lost, latent)
    assert pictures.decode(lost, latent * torch.nan).shape == pictures.decode(vae, latent).shape
