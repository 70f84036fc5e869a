"""Each term of a step against its formula, with a network that can be written down."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest
import torch
import training_models
from likeness.nodes.training.objective import objectives
from likeness.nodes.training.objective.identity_loss import IdentityLoss
from likeness.nodes.training.objective.losses import Objective
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import Batch
from likeness.nodes.training.steps.loop import Trainer

NOISE = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))
SIGMAS = torch.tensor([0.3, 2.0])
CAPTIONS, CLASS, CLASS_BEFORE, PLAIN = (
    {"text": torch.tensor(value)} for value in (1.0, 3.0, 7.0, 13.0))


@pytest.fixture(scope="module", params=["sd15", "sd3"])
def sampling(request):
    return training_models.make_model(request.param).model.model_sampling


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    masks = torch.rand(2, 6, 6, generator=generator)
    masks[0, :3] = 1.0  # nothing outside the face there
    return Batch((), (), torch.randn(2, 4, 6, 6, generator=generator), masks, CAPTIONS)


def _predict(gain: float) -> Callable[..., torch.Tensor]:
    """An estimate that tells inputs and texts apart."""
    def predict(noisy, sigmas, conds):
        return gain * noisy + 0.1 * conds["text"] * torch.linspace(-1, 1, 6)

    return predict


def _objective(sampling, identity=None, **fields) -> Objective:
    recipe = LoRARecipe(background=0.3, min_snr=0.0, **fields)
    return Objective(recipe, sampling, _predict(0.8), _predict(0.5), identity)


def _drift(sampling, batch, text_now, text_before) -> torch.Tensor:
    """(B, C, h, w): what learning has changed of the network's own target, squared."""
    noisy = sampling.noise_scaling(SIGMAS, NOISE, batch.latents)
    apart = _predict(0.8)(noisy, SIGMAS, text_now) - _predict(0.5)(noisy, SIGMAS, text_before)
    # Noise and flow are x0's error over sigma.
    return (apart / SIGMAS.view(-1, 1, 1, 1)).square()


def _terms(objective: Objective, batch: Batch, **conds) -> dict[str, torch.Tensor]:
    return objective.photo_terms(batch, SIGMAS, NOISE, **conds)


def test_the_background_is_held_where_the_mask_leaves_off(sampling):
    batch = _batch()
    found = _terms(_objective(sampling, outside_weight=0.7), batch, plain_conds=PLAIN)["outside"]
    drift, outside = _drift(sampling, batch, CAPTIONS, PLAIN), 1 - batch.masks[:, None]
    wanted = 0.7 * (drift * outside).sum((1, 2, 3)) / (4 * outside.sum((1, 2, 3)))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)


def test_the_background_is_held_at_the_photos_captions_where_no_others_are_given(sampling):
    batch = _batch()
    found = _terms(_objective(sampling, outside_weight=0.7), batch)["outside"]
    same = _terms(_objective(sampling, outside_weight=0.7), batch, plain_conds=CAPTIONS)["outside"]
    assert torch.equal(found, same)


def test_the_class_word_is_held_at_what_its_own_text_gave_before(sampling):
    batch = _batch()
    found = _terms(_objective(sampling, class_word_weight=0.6), batch, class_conds=CLASS,
                   class_conds_before=CLASS_BEFORE)["class word"]
    wanted = 0.6 * _drift(sampling, batch, CLASS, CLASS_BEFORE).mean((1, 2, 3))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)


def test_the_recogniser_is_asked_about_the_estimate_and_weighted(sampling):
    batch, asked = _batch(), []

    def identity(estimate, sigmas, given):
        asked.append((estimate.detach(), sigmas, given))
        return estimate.square().mean((1, 2, 3))

    gain = torch.tensor(0.8, requires_grad=True)
    objective = Objective(LoRARecipe(identity_weight=0.2), sampling, _predict(gain), None, identity)
    found = _terms(objective, batch)["identity"]
    (estimate, sigmas, given), = asked
    noisy = sampling.noise_scaling(SIGMAS, NOISE, batch.latents)
    assert torch.equal(estimate, _predict(0.8)(noisy, SIGMAS, CAPTIONS))
    assert sigmas is SIGMAS and given is batch
    torch.testing.assert_close(found, 0.2 * estimate.square().mean((1, 2, 3)))
    slope, = torch.autograd.grad(found.sum(), gain)
    wanted = 0.2 * (2 * estimate * noisy).mean((1, 2, 3)).sum()
    torch.testing.assert_close(slope, wanted)


def test_a_recogniser_without_an_answer_adds_no_term(sampling):
    objective = _objective(sampling, lambda *given: None, identity_weight=0.2)
    assert _terms(objective, _batch()).keys() == {"photo"}


def test_terms_without_weight_are_not_computed(sampling):
    def never(*given):
        raise AssertionError

    objective = Objective(LoRARecipe(class_word_weight=0.0), sampling, _predict(0.8), never, never)
    assert _terms(objective, _batch(), class_conds=CLASS).keys() == {"photo"}


def test_class_photos_count_whole_with_their_weight(sampling):
    batch = _batch()
    found = _objective(sampling, class_weight=0.4).class_terms(batch, SIGMAS, NOISE)["class"]
    noisy = sampling.noise_scaling(SIGMAS, NOISE, batch.latents)
    error = objectives.residual(sampling, SIGMAS, _predict(0.8)(noisy, SIGMAS, CAPTIONS),
                                batch.latents)
    torch.testing.assert_close(found, 0.4 * error.square().mean((1, 2, 3)))


class _Picture:
    """A VAE's outside: what an identity loss asks of it before it decodes."""

    vae_dtype, patcher = torch.float32, None

    def spacial_compression_decode(self) -> int:
        return 8


def test_a_run_asks_the_recogniser_from_its_step_on_with_the_photos_points(tmp_path):
    model = training_models.make_model("sd15")
    photos = training_models.make_training_set(tmp_path, "sd15", ((16, 16), (16, 16)))
    recipe = LoRARecipe(steps=4, identity_weight=0.2, identity_from=0.5)
    identity = IdentityLoss(_Picture(), torch.zeros(128).numpy(), recipe, training_models.CPU)
    asked = []
    identity.loss = lambda estimate, base, sigmas, points: asked.append(points)
    trainer = Trainer.__new__(Trainer)
    trainer.identity, trainer.base = identity, model.model
    samples = tuple(types.SimpleNamespace(item=item) for item in photos.items)
    batch = types.SimpleNamespace(samples=samples)
    for trainer.step in range(4):
        trainer._identity_distance(NOISE, SIGMAS, batch)
    assert asked == [[item.points for item in photos.items]] * 2
