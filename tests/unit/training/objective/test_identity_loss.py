"""The identity loss sees what the recogniser sees, at low noise alone, and is differentiable."""

from __future__ import annotations

import types
from pathlib import Path

import comfy.sd
import comfy.taesd.taesd
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import training_models
from comfy.ldm.models.autoencoder import AutoencoderKL
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.recognise import dlib_resnet
from likeness.nodes.faces.recognise.embed import centre, embed, similarity
from likeness.nodes.media.images import read_photo
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.objective.identity_loss import IdentityLoss, cut_chip, target_of
from likeness.nodes.training.recipes.adapters import LoRARecipe

from launcher.tiny.random_weights import fill

CPU = torch.device("cpu")
RECIPE = LoRARecipe(steps=10, identity_weight=0.1)
# A face of 90 pixels that fills most of a 128 pixel crop, in dlib's order of points.
POINTS = ((87.0, 50.0), (71.0, 51.0), (38.0, 50.0), (54.0, 51.0), (62.0, 76.0))


# An AutoencoderKL with the parts of the real one: norms, attention, nearest upsampling.
KL = {"embed_dim": 4, "ddconfig": {
    "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}}


@pytest.fixture(scope="module", params=["taesd", "kl"])
def vae(request) -> comfy.sd.VAE:
    network, config = comfy.taesd.taesd.TAESD(), None
    if request.param == "kl":
        network, config = AutoencoderKL(**KL), {"params": KL}
    weights = fill(network.state_dict(), torch.float32, "vae.")
    network.load_state_dict(weights)
    # Random decoders leave the range of pictures, where the host clips and no gradient passes.
    last, middle = ("decoder.conv_out", 0.0) if config else ("taesd_decoder.19", 0.5)
    with torch.no_grad():
        weights[f"{last}.weight"] *= 0.3 / network.decode(_latents()).std()
    weights[f"{last}.bias"] += middle
    with torch.inference_mode():  # as a loader node makes it
        return comfy.sd.VAE(sd=weights, device=CPU, config=config, dtype=torch.float32)


@pytest.fixture(scope="module")
def base():
    return training_models.make_model("sd15").model


@pytest.fixture(scope="module")
def seen(assets: Path):
    """Photos as (3, H, W) tensors in [0, 1], with their alignment points, pixels and face."""
    found = {}
    for name in ("obama", "obama3", "biden"):
        pixels = read_photo(assets / f"{name}.jpg")
        face = find_face(pixels)
        picture = torch.from_numpy(pixels / np.float32(255)).movedim(-1, 0)
        found[name] = picture, dlib_resnet.alignment_points(face.landmarks), pixels, face
    return found


class _PictureVAE:
    """A codec whose latents are the pictures, shrunk eightfold, so that photos can be 'decoded'."""

    vae_dtype = torch.float32

    def __init__(self) -> None:
        self.first_stage_model = types.SimpleNamespace(
            decode=lambda latents: F.pixel_shuffle(latents, 8) * 2 - 1)
        self.process_output = lambda image: (image + 1) / 2

    def spacial_compression_decode(self) -> int:
        return 8


def _photo_latent(picture: torch.Tensor) -> torch.Tensor:
    height, width = (side // 8 * 8 for side in picture.shape[-2:])
    return F.pixel_unshuffle(picture[None, :, :height, :width], 8)


def _target(seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(128).astype(np.float32)


def _latents(rows: int = 1, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 4, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["obama", "obama3", "biden"])
@pytest.mark.parametrize("enlarged", [1, 3], ids=["as it is", "reduced first"])
def test_the_differentiable_chip_embeds_as_the_recogniser_does(name, enlarged, seen):
    picture, points, pixels, face = seen[name]
    large = F.interpolate(picture[None], scale_factor=enlarged, mode="bilinear")[0]
    network = dlib_resnet.differentiable_network(CPU)
    ours = network(255 * cut_chip(large, points * enlarged)[None])[0].numpy()
    assert np.linalg.norm(ours - embed(pixels, face)) < 0.1
    assert similarity(ours, embed(pixels, face), "buffalo_l") > 0.98, "as a cosine"


def test_the_whole_path_embeds_photos_of_one_batch_as_the_recogniser_does(seen):
    identity = IdentityLoss(_PictureVAE(), _target(), RECIPE, CPU)
    rows = [seen["obama3"], seen["biden"]]
    height, width = (min(row[0].shape[side] for row in rows) // 8 for side in (1, 2))
    latents = torch.cat([_photo_latent(row[0])[..., :height, :width] for row in rows])
    ours = identity.embed(latents, [row[1] for row in rows]).numpy()
    for row, mine in zip(rows, ours, strict=True):
        assert np.linalg.norm(mine - embed(row[2], row[3])) < 0.1


def test_the_right_persons_photo_costs_less_than_somebody_elses(seen):
    target = embed(*seen["obama"][2:])
    base = types.SimpleNamespace(process_latent_out=lambda latent: latent,
                                 model_sampling=training_models.make_model(
                                     "sd15").model.model_sampling)
    identity = IdentityLoss(_PictureVAE(), target, RECIPE, CPU)
    costs = {name: float(identity.loss(_photo_latent(seen[name][0]), base, torch.tensor([0.1]),
                                       [seen[name][1]])) for name in ("obama3", "biden")}
    truth = {name: (1 - similarity(embed(*seen[name][2:]), target)) ** 2 for name in costs}
    assert costs["obama3"] < 0.2 < 0.4 < costs["biden"]
    assert costs == pytest.approx(truth, abs=0.05)


def test_the_gradient_is_that_of_finite_differences(vae, base):
    identity = IdentityLoss(vae, _target(), RECIPE, CPU)
    estimate, direction = 0.3 * _latents(), _latents(seed=1)

    def at(shift: torch.Tensor) -> torch.Tensor:
        return identity.loss(estimate + shift * direction, base, torch.tensor([0.5]), [POINTS])[0]

    with Scope() as scope:
        identity.attach(scope)
        # The slope jumps wherever a feature switches on, so a stretch is compared and no point.
        slopes = []
        for shift in torch.linspace(-3e-4, 3e-4, 13):
            leaf = shift.clone().requires_grad_()
            slopes.append(torch.autograd.grad(at(leaf), leaf)[0])
        mean = torch.trapezoid(torch.stack(slopes), dx=1 / 12)
        with torch.no_grad():
            measured = (at(torch.tensor(3e-4)) - at(torch.tensor(-3e-4))) / 6e-4
    assert abs(mean) > 0.1 and mean.item() == pytest.approx(measured.item(), rel=0.02)


def test_only_the_face_and_its_surroundings_are_decoded(vae, base):
    identity = IdentityLoss(vae, _target(), RECIPE, CPU)
    decoded = []
    with Scope() as scope:
        identity.attach(scope)
        decode = vae.first_stage_model.decode
        scope.set_attribute(vae.first_stage_model, "decode",
                            lambda latents: decoded.append(latents.shape) or decode(latents))
        estimate = _latents(side=64).requires_grad_()
        identity.loss(estimate, base, torch.tensor([0.1]), [POINTS]).sum().backward()
    assert decoded[0][-2:] < (32, 32)
    touched = estimate.grad[0].abs().amax(0) > 0
    assert touched[:16, :16].any() and not touched[30:].any() and not touched[:, 30:].any()


def test_a_face_at_the_border_of_a_small_crop_is_decoded_whole(vae, base):
    identity = IdentityLoss(vae, _target(), RECIPE, CPU)
    moved = tuple((x - 60, y - 60) for x, y in POINTS)
    with Scope() as scope:
        identity.attach(scope)
        loss = identity.loss(_latents(side=8), base, torch.tensor([0.1]), [moved])
    assert torch.isfinite(loss).all()


def test_nothing_is_decoded_at_high_noise_or_without_a_face(vae, base):
    identity = IdentityLoss(vae, _target(), RECIPE, CPU)
    with Scope() as scope:
        scope.set_attribute(vae.first_stage_model, "decode", None)
        assert identity.loss(_latents(), base, torch.tensor([5.0]), [POINTS]) is None
        assert identity.loss(_latents(), base, torch.tensor([0.1]), [()]) is None


def test_rows_that_are_too_noisy_cost_nothing_and_get_no_gradient(vae, base):
    identity = IdentityLoss(vae, _target(), RECIPE, CPU)
    estimate = _latents(3).requires_grad_()
    with Scope() as scope:
        identity.attach(scope)
        loss = identity.loss(estimate, base, torch.tensor([5.0, 0.1, 0.1]), [POINTS, POINTS, ()])
        loss.sum().backward()
        alone = identity.loss(estimate[1:2], base, torch.tensor([0.1]), [POINTS])
    assert loss[0] == loss[2] == 0 and loss[1].item() == pytest.approx(alone.item(), rel=1e-4)
    reached = estimate.grad.abs().sum((1, 2, 3)) > 0
    assert reached.tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_the_noise_from_which_it_is_asked_is_the_recipes_signal_to_noise_ratio(name):
    base = training_models.make_model(name).model
    identity = IdentityLoss(_PictureVAE(), _target(), LoRARecipe(identity_snr=4.0), CPU)
    identity.embed = lambda latents, points: torch.zeros(len(latents), 128)
    # SNR 4: noise half of the signal, sigma 0.5 where noise is added and 1/3 where it is mixed in.
    edge = 1 / 3 if name == "sd3" else 0.5
    estimate = torch.zeros(2, 16 if name == "sd3" else 4, 16, 16)
    loss = identity.loss(estimate, base, torch.tensor([0.98, 1.02]) * edge, [POINTS, POINTS])
    assert loss[0] > 0 and loss[1] == 0


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_estimates_are_decoded_at_the_vaes_scale(name):
    base = training_models.make_model(name).model
    identity = IdentityLoss(_PictureVAE(), _target(), LoRARecipe(identity_snr=0.0), CPU)
    seen = []
    identity.embed = lambda latents, points: seen.append(latents) or torch.zeros(1, 128)
    raw = torch.randn(1, training_models.TEXT[name][2], 16, 16)
    identity.loss(base.process_latent_in(raw), base, torch.tensor([0.5]), [POINTS])
    torch.testing.assert_close(seen[0], raw)


def test_it_is_asked_in_the_last_part_of_the_steps_alone():
    identity = IdentityLoss(_PictureVAE(), _target(), RECIPE, CPU)
    assert [identity.active(step) for step in range(10)] == [False] * 5 + [True] * 5
    off = IdentityLoss(_PictureVAE(), _target(), LoRARecipe(steps=10), CPU)
    assert not any(off.active(step) for step in range(10))


def test_the_vae_is_left_as_it_was(vae, base):
    network = vae.first_stage_model
    owner = types.SimpleNamespace(model=network)
    weights = training_models.weights(owner)

    def state() -> list:
        return [(path, sorted(vars(module)), [(name, id(value), value.requires_grad) for name, value
                 in module.named_parameters(recurse=False)])
                for path, module in network.named_modules()]

    latents = _latents()
    with torch.inference_mode():
        picture = vae.decode(latents)
    before = state()
    identity = IdentityLoss(vae, _target(), RECIPE, CPU)
    with Scope() as scope:
        identity.attach(scope)
        assert state() != before
        estimate = latents.clone().requires_grad_()
        identity.loss(estimate, base, torch.tensor([0.1]), [POINTS]).sum().backward()
    assert state() == before
    with torch.inference_mode():
        assert torch.equal(vae.decode(latents), picture)
    training_models.assert_same_weights(owner, weights)


def test_the_target_is_the_centre_of_the_photos_that_train(obama):
    references = obama.embeddings["dlib"][:len(obama.references)]
    np.testing.assert_array_equal(target_of(obama), centre(references))
    assert not np.allclose(target_of(obama), centre(obama.embeddings["dlib"]))


def test_a_missing_vae_is_one_sentence():
    with pytest.raises(LikenessError, match="needs the model's VAE"):
        IdentityLoss(None, _target(), RECIPE, CPU)
