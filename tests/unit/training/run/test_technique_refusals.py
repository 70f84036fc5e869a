"""Jobs that cannot train or lose their way: one sentence each, and nothing is lost."""

from __future__ import annotations

import dataclasses

import pytest
import technique_jobs as jobs
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.tensors import read_latent, write_latent
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.run import session
from likeness.nodes.training.run.job import ANEW
from likeness.nodes.training.steps.loop import Trainer
from likeness.nodes.training.watch.divergence import LossWatch


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _refused(job, sentence):
    """The refusal, which came before anything was trained or written."""
    seen = []
    with pytest.raises(LikenessError, match=sentence) as caught:
        session.run(job, seen.append)
    assert "\n" not in str(caught.value) and seen == []
    assert not job.lora_folder.exists() and not list(job.work_folder.glob("*"))
    return str(caught.value)


def _lora(folder, name="flux", technique="lora", **fields):
    return jobs.make_job(name, folder, jobs.make_recipe(technique, **fields))


@pytest.mark.parametrize(("technique", "part"), [
    ("lora of text encoders", "clip"), ("textual inversion", "clip"), ("pivotal", "clip"),
    ("dreambooth", "clip"), ("dreambooth", "vae")])
def test_a_part_that_a_technique_needs_is_asked_for(technique, part, tmp_path):
    job = dataclasses.replace(_lora(tmp_path, technique=technique), **{part: None})
    _refused(job, f"needs `{part}`; connect {part.upper()}")


class _Unknown(torch.nn.Module):
    """A network that another pack brings, with layers of its own kind."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(16, 16))
        self.dtype = torch.float32

    def forward(self, x, *given, **more):
        return x


@pytest.mark.parametrize("technique", ["lora", "oft", "dreambooth"])
def test_a_network_of_unknown_layers_is_refused_by_its_name(technique, tmp_path):
    model = training_models.make_model("flux")
    model.model.diffusion_model = _Unknown()
    job = dataclasses.replace(_lora(tmp_path, technique=technique), model=model)
    _refused(job, "^This model has no layers of the preset")


def test_a_network_with_plain_layers_of_another_pack_is_refused_or_trained(tmp_path):
    model = training_models.make_model("flux")
    block = model.model.diffusion_model.double_blocks[0].img_attn
    with torch.inference_mode(False):
        plain = torch.nn.Linear(block.proj.in_features, block.proj.out_features)
    block.proj = plain
    job = dataclasses.replace(_lora(tmp_path), model=model)
    outcome = session.run(job, jobs.ignore)
    assert outcome.report["reload_error"] < 1e-2
    assert torch.equal(block.proj.weight, plain.weight) and block.proj is plain


def test_an_empty_training_set_is_refused(tmp_path):
    job = _lora(tmp_path)
    empty = dataclasses.replace(job.training_set, items=())
    _refused(dataclasses.replace(job, training_set=empty), "The training set has no photos")


@pytest.mark.parametrize("kind", ["latent", "caption"])
def test_a_training_set_whose_files_are_gone_is_refused(kind, tmp_path):
    job = _lora(tmp_path)
    for file in job.training_set.folder.glob(f"*{kind}*"):
        file.unlink()
    _refused(job, "is incomplete .*queue the workflow again")


@pytest.mark.parametrize("technique", ["lora", "textual inversion", "dreambooth"])
def test_one_photo_trains_and_the_report_says_so(technique, tmp_path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(technique), photos=1)
    report = session.run(job, jobs.ignore).report
    assert report["photos"] == 1 and report["steps"] == 4


@pytest.mark.parametrize("technique", ["lora", "dora", "loha", "lora of text encoders"])
def test_a_rank_above_a_layers_size_is_refused_with_the_largest_that_fits(technique, tmp_path):
    said = _refused(_lora(tmp_path, technique=technique, rank=4096), "`rank`? ?4096 .*lower it to")
    most = int(said.rsplit("lower it to ", 1)[1].split()[0])
    assert 1 <= most < 4096


def test_a_class_set_for_another_model_is_refused(tmp_path):
    job = _lora(tmp_path, technique="dreambooth")
    other = jobs.make_job("sd15", tmp_path / "other", job.recipe, classes=1).class_set
    _refused(dataclasses.replace(job, class_set=other), "has 4 channels, the model takes 16")


def test_a_caption_without_the_trigger_is_named_where_a_word_learns(tmp_path):
    job = _lora(tmp_path, technique="textual inversion")
    first, *others = job.training_set.items
    bare = {**job.training_set.texts, first.conditioning_key: "a photo of a garden"}
    chosen = dataclasses.replace(job.training_set, texts=bare)
    _refused(dataclasses.replace(job, training_set=chosen),
             "`a photo of a garden` does not contain the trigger `ohwx`")


@pytest.mark.parametrize(("technique", "fields", "sentence"), [
    ("pivotal", {"learning_rate": 1.0, "optimizer": "prodigy"}, "set `learning_rate` to 1|to 1"),
    ("textual inversion", {"learning_rate": 1.0, "optimizer": "prodigy"}, "to 1"),
    ("lora", {"optimizer": "prodigy"}, "`learning_rate` to 1, got 0.001"),
    ("lora+", {"learning_rate": 1.0, "optimizer": "prodigy"}, "`plus_ratio`"),
    ("lora", {"optimizer": "adamw schedule-free", "ema": 0.9}, "set `ema` to 0"),
    ("textual inversion", {"class_word_weight": 1.0}, "`class_word_weight` and `outside_weight`"),
])
def test_settings_that_contradict_each_other_are_refused(technique, fields, sentence, tmp_path):
    _refused(_lora(tmp_path, technique=technique, **fields), sentence)


def test_a_words_rate_of_its_own_is_refused_with_prodigy(tmp_path):
    recipe = jobs.make_recipe("pivotal", learning_rate=1.0, optimizer="prodigy",
                              tokens=TokenSettings(learning_rate=0.5))
    _refused(jobs.make_job("sd15", tmp_path, recipe), "token's rate\\) to 1|rate to 1")


@pytest.mark.parametrize("folder", ["lora_folder", "work_folder", "embedding_folder"])
def test_a_folder_that_cannot_be_written_is_told_before_training(folder, tmp_path):
    job = _lora(tmp_path, technique="pivotal")
    (tmp_path / "file").write_text("in the way")
    job = dataclasses.replace(job, **{folder: tmp_path / "file" / "inside"})
    seen = []
    with pytest.raises(LikenessError, match="inside cannot be written .*before training") as caught:
        session.run(job, seen.append)
    assert seen == [] and "\n" not in str(caught.value)


def test_a_read_only_folder_is_told_before_training(tmp_path, monkeypatch):
    def refuse(*given, dir, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(session.products.tempfile, "TemporaryFile", refuse)
    _refused(_lora(tmp_path), "cannot be written .Permission denied.")


def test_a_finished_run_is_loaded_from_folders_that_cannot_be_written(tmp_path, monkeypatch):
    job = _lora(tmp_path)
    session.run(job, jobs.ignore)

    def refuse(*given, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(session.products.tempfile, "TemporaryFile", refuse)
    assert session.run(job, jobs.ignore).report["reused"]


def _broken_from(step, monkeypatch, factor):
    real = Trainer.terms

    def terms(trainer, *given):
        found = real(trainer, *given)
        if trainer.step >= step:
            found["photo"] = found["photo"] * factor
        return found

    monkeypatch.setattr(Trainer, "terms", terms)


@pytest.mark.parametrize("technique", ["lora", "textual inversion", "dreambooth", "pivotal"])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(technique, tmp_path,
                                                                     monkeypatch):
    job = _lora(tmp_path, technique=technique, steps=6)
    with monkeypatch.context() as patch:
        _broken_from(3, patch, float("nan"))
        with pytest.raises(LikenessError, match=r"loss of step 4 is not a number \(photo photo\d"
                                                r".jpg; noise level [\d.]+\); lower the learning "
                                                r"rate .*\(what was learned up to step 3 is kept"):
            session.run(job, jobs.ignore)
    lower = dataclasses.replace(job, recipe=job.recipe.with_options({"learning_rate": 1e-5}))
    with pytest.raises(LikenessError, match="stopped at step 3 with other inputs: `learning_rate`"):
        session.run(lower, jobs.ignore)
    assert session.run(dataclasses.replace(lower, unfinished=ANEW),
                       jobs.ignore).report["resumed_at"] == 0
    again = session.run(job, jobs.ignore)
    assert again.report["resumed_at"] == 3 and all(loss == loss for loss in again.losses)
    whole = session.run(dataclasses.replace(job, work_folder=tmp_path / "w", lora_folder=tmp_path
                                            / "l" / "loras"), jobs.ignore)
    assert whole.losses == again.losses


def test_a_rate_that_makes_the_model_worse_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "STATE_EVERY", 1)
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(
        "lora", steps=100, learning_rate=0.3, warmup=50, target="all linear"))
    seen = []
    with pytest.raises(LikenessError, match="model .*worse.*lower the learning rate") as (
            caught):
        session.run(job, lambda result: seen.append(result.loss))
    assert "\n" not in str(caught.value) and len(seen) < 60
    kept = int(str(caught.value).split("up to step ")[1].split()[0])
    assert 1 <= kept <= len(seen)


def test_a_lost_model_does_not_take_the_place_of_the_last_good_state(tmp_path, monkeypatch):
    job = _lora(tmp_path, steps=60)
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(9))
    with monkeypatch.context() as patch:
        _broken_from(9, patch, 1000.0)
        with pytest.raises(LikenessError, match="by step 24, .*up to step 9 is kept"):
            session.run(job, jobs.ignore)
    seen = []
    session.run(job, lambda result: seen.append(result.step))
    assert seen[0] == 10 and seen[-1] == 60


def test_losses_that_jump_about_are_no_divergence():
    generator = torch.Generator().manual_seed(0)
    for run in range(50):
        watch = LossWatch()
        # Squares of normal numbers spread more than the losses of photos do.
        for loss in torch.randn(400, generator=generator).square().tolist():
            watch.record(loss + 0.05)
            assert not watch.diverged, run


def test_a_tenfold_loss_is_divergence_and_a_fivefold_is_not():
    for factor, lost in ((10.0, True), (5.0, False)):
        watch = LossWatch()
        for step in range(60):
            watch.record(0.3 * (factor if step >= 20 else 1.0))
        assert watch.diverged == lost
        assert LossWatch(watch.first, watch.last).growth == watch.growth


def test_a_model_that_gives_nan_from_the_start_is_not_blamed_on_the_learning_rate(tmp_path):
    model = training_models.make_model("flux")
    weight = model.model.diffusion_model.img_in.weight
    with torch.inference_mode(False):
        model.model.diffusion_model.img_in.weight = torch.nn.Parameter(
            torch.full(weight.shape, torch.nan), requires_grad=False)
    job = dataclasses.replace(_lora(tmp_path), model=model)
    with pytest.raises(LikenessError, match="loss of step 1 is not a number .*the model itself"):
        session.run(job, jobs.ignore)


def test_nan_that_a_vae_has_left_in_the_set_is_named_before_the_first_step(tmp_path):
    job = _lora(tmp_path)
    item = job.training_set.items[1]
    latent, mask = read_latent(item.latent_file)
    write_latent(item.latent_file, latent * torch.nan, mask)
    _refused(job, f"The VAE gives NaN in place of numbers for {item.photo}")
