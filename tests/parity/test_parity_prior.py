"""What keeps the class as it was, in whole steps of the trainer, against formulas written out.

Class photos: loss + weight * prior loss, as diffusers' train_dreambooth scripts add it (arXiv
2208.12242, section 3.2). Their error is weighted by noise level exactly as that of the person's
photos: so do sd-scripts, whose min-SNR and debiased weights reach regularisation images too, and
diffusers' scripts for SD3 and FLUX with flow weightings; diffusers' train_dreambooth for SD1.5
alone leaves the prior loss without its min-SNR weight. No mask: all of the picture is to stay.

Class word: weight * mse(output with the adapter, output without), for the class caption and the
person's own noisy latents, without a weight by noise level, as ai-toolkit's differential output
preservation has it.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
import training_models
from diffusers.training_utils import compute_loss_weighting_for_sd3, compute_snr
from formulas import (
    SCHEDULE,
    TOLERANCE,
    assert_equal_gradients,
    make_trainer,
    make_twin,
    masked_loss,
    predicted,
    squared_error,
)
from likeness.nodes.training.objective.losses import Objective
from likeness.nodes.training.samples.data import collate

BACKGROUND, WEIGHT = 0.2, 0.7
SIZES = ((16, 16), (16, 16))
NONE = {"weighting": "none"}


@pytest.fixture
def drawn(monkeypatch):
    """What the trainer's steps ask the objective for, by the kind of photo."""
    found = {}

    def record(kind):
        original = getattr(Objective, kind)

        def asked(self, batch, sigmas, noise, *conds):
            found[kind] = batch, sigmas, noise
            return original(self, batch, sigmas, noise, *conds)

        monkeypatch.setattr(Objective, kind, asked)

    record("photo_terms")
    record("class_terms")
    return found


def _step(trainer, monkeypatch):
    """One step of the trainer's own, whose gradients stay and whose weights do not move."""
    monkeypatch.setattr(trainer.learner, "update", lambda step: None)
    return next(trainer.run())


def _steps(trainer, prediction, sigmas):
    """The scheduler's steps of drawn noise levels; of flow models the levels themselves."""
    if prediction == "flow":
        return sigmas
    steps = (trainer.sampling.sigmas[:, None] - sigmas).abs().argmin(0)
    assert torch.equal(trainer.sampling.sigmas[steps], sigmas)
    return steps


def _weights(fields, prediction, steps):
    """Weight of each sample's error: min-SNR (arXiv 2303.09556), or those of SD3's paper."""
    if "min_snr" in fields:
        snr = compute_snr(SCHEDULE, steps)
        return snr.clamp(max=fields["min_snr"]) / (snr if prediction == "eps" else snr + 1)
    if prediction == "flow":
        return compute_loss_weighting_for_sd3(fields["weighting"].replace(" ", "_"), steps)
    return torch.ones(len(steps))


@pytest.mark.parametrize(("name", "prediction", "fields"), [
    ("sd15", "eps", NONE), ("sd15", "eps", {"min_snr": 0.1}),
    ("sdxl", "v", {"min_snr": 5.0}), ("sd3", "flow", {"weighting": "cosmap"}),
    ("flux", "flow", NONE)])
def test_class_photos_add_their_mean_error_weighted_as_the_persons(
        name, prediction, fields, drawn, monkeypatch, tmp_path):
    sets = [training_models.make_training_set(tmp_path / part, name, SIZES, seed=seed)
            for seed, part in enumerate(("person", "class"))]
    trainer = make_trainer(*sets[:1], name, prediction, sets[1], background=BACKGROUND,
                           class_weight=WEIGHT, batch_size=2, gradient_clip=0.0, **fields)
    result = _step(trainer, monkeypatch)
    twin, expected = make_twin(trainer, name), {}
    for kind, background in (("photo_terms", BACKGROUND), ("class_terms", 1.0)):
        batch, sigmas, noise = drawn[kind]
        steps = _steps(trainer, prediction, sigmas)
        error = squared_error(twin, prediction, batch, steps, noise)
        weights = _weights(fields, prediction, steps)
        assert fields is NONE or (weights - 1).abs().max() > 0.1  # or they would show nothing
        expected[kind] = masked_loss(error, batch, weights, background)
    loss = expected["photo_terms"] + WEIGHT * expected["class_terms"]
    loss.backward()
    assert result.terms == {
        "photo": pytest.approx(expected["photo_terms"].item(), rel=TOLERANCE),
        "class": pytest.approx(WEIGHT * expected["class_terms"].item(), rel=TOLERANCE)}
    assert result.loss == pytest.approx(loss.item(), rel=TOLERANCE)
    assert_equal_gradients(trainer, twin.host_gradients)
    assert not torch.equal(drawn["class_terms"][0].latents, drawn["photo_terms"][0].latents)


@pytest.mark.parametrize(("name", "prediction", "fields"), [
    ("sd15", "eps", {"min_snr": 0.1}), ("sdxl", "v", {"min_snr": 5.0}),
    ("sd3", "flow", {"weighting": "cosmap"}), ("flux", "flow", NONE)])
def test_the_class_word_costs_what_the_adapter_changes_of_it(name, prediction, fields, drawn,
                                                             monkeypatch, tmp_path):
    made = training_models.make_training_set(tmp_path, name, (*SIZES, (8, 8)))
    class_key = made.items[-1].conditioning_key  # another text than those of the photos
    photos = tuple(dataclasses.replace(item, class_key=class_key) for item in made.items[:2])
    trainer = make_trainer(dataclasses.replace(made, items=photos), name, prediction,
                           background=BACKGROUND, class_word_weight=WEIGHT, batch_size=2,
                           gradient_clip=0.0, **fields)
    result = _step(trainer, monkeypatch)
    batch, sigmas, noise = drawn["photo_terms"]
    steps, twin = _steps(trainer, prediction, sigmas), make_twin(trainer, name)
    photo = masked_loss(squared_error(twin, prediction, batch, steps, noise), batch,
                        _weights(fields, prediction, steps), BACKGROUND)
    conds = collate(batch.samples, [class_key] * 2, trainer.device).conds
    with torch.no_grad():
        before = predicted(make_twin(trainer, name, adapted=False), batch, steps, noise, conds)
    drift = torch.nn.functional.mse_loss(predicted(twin, batch, steps, noise, conds), before)
    (photo + WEIGHT * drift).backward()
    assert result.terms == {"photo": pytest.approx(photo.item(), rel=TOLERANCE),
                            "class word": pytest.approx(WEIGHT * drift.item(), rel=TOLERANCE)}
    assert drift > 0
    assert_equal_gradients(trainer, twin.host_gradients)
