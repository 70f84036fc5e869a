"""What each technique leaves behind: files that the host's own loaders take, and nothing else."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import comfy.sd
import comfy.utils
import pytest
import technique_jobs as jobs
import text_models
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.training.export.keys import KeyStyle
from likeness.nodes.training.objective import denoise
from likeness.nodes.training.run import session
from likeness.nodes.training.samples.data import load_samples
from likeness.nodes.training.steps.loop import Trainer

_UNETS = ("sd15", "sdxl")  # with ten times the layers of the others; not all of them learn here
RUNS = [(name, technique) for name in training_models.ARCHITECTURES
        for technique in jobs.TECHNIQUES]
WORDS = [run for run in RUNS if "word" in run[1] or run[1] in ("pivotal", "textual inversion")]
LORAS = [run for run in RUNS if "dreambooth" not in run[1] and run[1] != "textual inversion"]
WHOLE = [run for run in RUNS if "dreambooth" in run[1]]
PROMPT = f"a photo of {jobs.TRIGGER} {jobs.NOUN}"


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


@dataclasses.dataclass(frozen=True, eq=False)
class Done:
    """A run and what became of what it was given."""

    job: session.Job
    outcome: session.Outcome
    untouched: bool


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    @cache
    def run(name, technique):
        folder = tmp_path_factory.mktemp(name)
        few = {"target": "cross-attention"} if name in _UNETS and "inv" not in technique else {}
        job = jobs.make_job(name, folder, jobs.make_recipe(technique, **few),
                            classes=2 * ("dreambooth" in technique))
        before = _given(job)
        outcome = session.run(job, jobs.ignore)
        return Done(job, outcome, _same(before, _given(job)))

    return run


def _given(job):
    parts = [job.model, job.clip.patcher, job.vae.patcher]
    return ([_tree(part) for part in parts],
            [training_models.weights(part) for part in parts],
            [len(part.patches) for part in parts])


def _tree(model):
    """What is on a loaded network's modules; the host makes new objects when it patches."""
    return [(path, kind, [pair for pair in own if pair[0] not in ("weight_function",
                                                                  "bias_function")],
             [(name, *flags) for name, _, *flags in parameters])
            for path, kind, own, parameters, _ in training_models.tree(model)]


def _same(before, after):
    trees, weights, patches = before
    return trees == after[0] and patches == after[2] and all(
        was.keys() == now.keys() and all(torch.equal(value, now[key])
                                         for key, value in was.items())
        for was, now in zip(weights, after[1], strict=True))


def _output(done, model):
    """What a MODEL predicts for the first photo."""
    runtime.load_models([model])
    sample, *_ = load_samples(model.model, done.job.training_set, done.job.recipe,
                              model.load_device)
    return denoise.probe(model, sample)


def _change(found, truth, before):
    """How far an output is from the true one, relative to what training changed."""
    return float((found - truth).norm() / (truth - before).norm())


@pytest.mark.parametrize(("name", "technique"), RUNS)
def test_each_technique_saves_its_files_and_proves_them(name, technique, trained):
    done = trained(name, technique)
    kinds = {"dreambooth": ["checkpoint"], "dreambooth with a word": ["checkpoint", "embedding"],
             "textual inversion": ["embedding"], "pivotal": ["lora", "embedding"]}
    assert list(done.outcome.files) == kinds.get(technique, ["lora"])
    for kind, path in done.outcome.files.items():
        assert path.parent == done.job.folder(f"{kind}s") and list(path.parent.iterdir()) == [path]
    assert done.outcome.report["reload_error"] < 2e-3
    assert not list(done.job.work_folder.iterdir())


@pytest.mark.parametrize(("name", "technique"), RUNS)
def test_model_clip_and_vae_come_out_as_they_went_in(name, technique, trained):
    assert trained(name, technique).untouched


@pytest.mark.parametrize(("name", "technique"), RUNS)
def test_the_report_counts_what_learned(name, technique, trained):
    done = trained(name, technique)
    report, job = done.outcome.report, done.job
    trainer = session.make_trainer(job)
    learned = trainer.learner.tensors()
    assert report["parameters"] == sum(value.numel() for value in learned.values()) > 0
    assert report["method"] == job.recipe.method and report["steps"] == 4
    assert report["kept_step"] == 4 and report["ended"] == "all 4 steps are done."
    assert report["layers"] == (0 if trainer.adapters is None else len(trainer.adapters.layers))
    assert (report["text_layers"] > 0) == (technique == "lora of text encoders")
    assert report["word_vectors"] == (0 if job.recipe.tokens is None else 2)
    assert report["class_photos"] == 2 * ("dreambooth" in technique) and report["photos"] == 3
    assert report["bytes"] == {kind: path.stat().st_size
                               for kind, path in done.outcome.files.items()}
    assert len(done.outcome.losses) == 4 and report["seconds_per_step"] > 0
    assert report["first_loss"] == pytest.approx(done.outcome.losses[0], abs=1e-6)


@pytest.mark.parametrize(("name", "technique"), RUNS)
def test_a_finished_run_is_not_trained_again(name, technique, trained, monkeypatch):
    done = trained(name, technique)
    monkeypatch.setattr(Trainer, "_step", None)
    again = session.run(done.job, jobs.ignore)
    assert again.report["reused"] and again.losses == done.outcome.losses
    assert again.files == done.outcome.files and again.report["reload_error"] < 2e-3
    assert again.tensors.keys() == done.outcome.tensors.keys()
    assert again.model.patches.keys() == done.outcome.model.patches.keys()
    assert torch.equal(text_models.stock_encode(again.clip, PROMPT),
                       text_models.stock_encode(done.outcome.clip, PROMPT))


@pytest.mark.parametrize(("name", "technique"), LORAS)
def test_the_stock_lora_loader_gives_what_was_trained(name, technique, trained, caplog):
    done = trained(name, technique)
    caplog.clear()
    tensors = comfy.utils.load_torch_file(str(done.outcome.files["lora"]), safe_load=True)
    model, clip = comfy.sd.load_lora_for_models(done.job.model, done.job.clip, tensors, 1.0, 1.0)
    assert "not loaded" not in caplog.text
    before, truth = (_output(done, each) for each in (done.job.model, done.outcome.model))
    assert _change(_output(done, model), truth, before) < 1e-5
    assert len(model.patches) == done.outcome.report["layers"]
    assert len(clip.patcher.patches) == done.outcome.report["text_layers"]
    assert torch.equal(text_models.stock_encode(clip, PROMPT),
                       text_models.stock_encode(done.outcome.clip, PROMPT))


@pytest.mark.parametrize(("name", "technique"), WHOLE)
def test_the_stock_checkpoint_loader_gives_model_clip_and_vae(name, technique, trained):
    done = trained(name, technique)
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(done.outcome.files["checkpoint"]), output_vae=True, output_clip=True)
    before, truth = (_output(done, each) for each in (done.job.model, done.outcome.model))
    assert _change(_output(done, model), truth, before) < 1e-3
    # A checkpoint's text encoder is saved and loaded in half precision.
    encoded = text_models.stock_encode(done.job.clip, PROMPT)
    assert (text_models.stock_encode(clip, PROMPT) - encoded).norm() < 5e-3 * encoded.norm()
    latent = torch.randn(1, training_models.TEXT[name][2], 4, 4,
                         generator=torch.Generator().manual_seed(1))
    assert torch.equal(vae.decode(latent), done.job.vae.decode(latent))


@pytest.mark.parametrize(("name", "technique"), WORDS)
def test_a_prompt_of_the_host_finds_the_new_word(name, technique, trained, tmp_path):
    done = trained(name, technique)
    word = done.outcome.files["embedding"]
    stock = text_models.make_clip(name, word.parent)
    prompt = f"a photo of embedding:{word.stem} {jobs.NOUN}"
    found = text_models.stock_encode(stock, prompt)
    assert torch.allclose(found, text_models.stock_encode(done.outcome.clip, prompt), atol=1e-5)
    assert not torch.allclose(found, text_models.stock_encode(
        text_models.make_clip(name, tmp_path), prompt), atol=1e-3)
    rows, _ = jobs.stored(word)
    assert all(len(value) == 2 and value.isfinite().all() for value in rows.values())
    start = session.make_trainer(done.job).text.encoders.tokens.rows
    moved = [not torch.equal(value, first.detach()) for value, first
             in zip(sorted(rows.values(), key=lambda row: row.shape),
                    sorted(start.values(), key=lambda row: row.shape), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("technique", ["lora", "dora", "loha", "lokr", "oft", "pivotal"])
@pytest.mark.parametrize(("file_type", "kind", "limit"), [
    ("fp32", torch.float32, 5e-4), ("bf16", torch.bfloat16, 1e-2)])
def test_files_of_every_precision_load_as_trained(technique, file_type, kind, limit, tmp_path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(technique, steps=2),
                        file_type=file_type)
    outcome = session.run(job, jobs.ignore)
    matrices = {key: value for key, value in outcome.tensors.items()
                if value.ndim > 1 and "dora_scale" not in key}
    assert {value.dtype for value in matrices.values()} == {kind}
    assert outcome.report["reload_error"] < limit
    if technique == "pivotal":  # rows of words have no half form
        rows, _ = jobs.stored(outcome.files["embedding"])
        assert {value.dtype for value in rows.values()} == {torch.float32}


@pytest.mark.parametrize(("name", "technique"), [
    ("flux", "lora"), ("sd3", "rslora"), ("sd15", "lora of text encoders")])
def test_diffusers_keys_load_as_kohyas_and_count_as_finished(name, technique, tmp_path,
                                                            monkeypatch, caplog):
    recipe = jobs.make_recipe(
        technique, steps=2, target="cross-attention" if name == "sd15" else "attention")
    job = jobs.make_job(name, tmp_path, recipe, key_style=KeyStyle.DIFFUSERS, file_type="fp32")
    outcome = session.run(job, jobs.ignore)
    kohya = session.run(dataclasses.replace(job, key_style=KeyStyle.KOHYA), jobs.ignore)
    assert all(key.startswith(("transformer.", "unet.", "text_encoder"))
               for key in outcome.tensors)
    done = Done(job, outcome, True)
    before, truth = _output(done, job.model), _output(done, kohya.model)
    assert _change(_output(done, outcome.model), truth, before) < 1e-3
    caplog.clear()
    monkeypatch.setattr(Trainer, "_step", None)
    again = session.run(job, jobs.ignore)
    assert again.report["reused"] and "damaged" not in caplog.text
    assert again.report["reload_error"] < 1e-3


@pytest.mark.parametrize("technique", ["lora of text encoders", "dora", "lokr", "oft"])
def test_plain_keys_load_as_kohyas(technique, tmp_path):
    recipe = jobs.make_recipe(technique, steps=2)
    job = jobs.make_job("sd3", tmp_path, recipe, key_style=KeyStyle.PLAIN)
    outcome = session.run(job, jobs.ignore)
    kohya = session.run(dataclasses.replace(job, key_style=KeyStyle.KOHYA), jobs.ignore)
    assert all(key.startswith(("diffusion_model.", "text_encoders.")) for key in outcome.tensors)
    done = Done(job, outcome, True)
    assert torch.equal(_output(done, outcome.model), _output(done, kohya.model))
    assert torch.equal(text_models.stock_encode(outcome.clip, PROMPT),
                       text_models.stock_encode(kohya.clip, PROMPT))
    assert len(outcome.tensors) == len(kohya.tensors)


def test_files_lie_in_the_folders_they_are_given(tmp_path: Path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("pivotal", steps=2),
                        embedding_folder=tmp_path / "words")
    outcome = session.run(job, jobs.ignore)
    assert outcome.files["embedding"].parent == tmp_path / "words"
    assert outcome.files["lora"].parent == tmp_path / "loras"
