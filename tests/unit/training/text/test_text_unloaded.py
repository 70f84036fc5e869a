"""Text encoders that have nothing left to say make room on the device."""

from __future__ import annotations

import types

import comfy.model_management
import numpy as np
import picture_models
import pytest
import technique_jobs
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.training.pictures import sampling as pictures
from likeness.nodes.training.pictures.class_nodes import ClassPhotosNode
from likeness.nodes.training.pictures.sampling import Sampling
from likeness.nodes.training.run import looking, nodes, session
from likeness.nodes.training.watch.monitor import Judge, Monitor
from likeness.nodes.training.watch.stopping import StopRule

TEXT = "a photo of a woman"


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "output_directory", lambda: tmp_path)
    monkeypatch.setattr(runtime, "send_event", lambda *given: None)
    with torch.inference_mode():
        yield


def _loaded(clip):
    return any(entry.model is not None and entry.model.is_clone(clip.patcher)
               for entry in comfy.model_management.current_loaded_models)


def _encode(clip):
    return clip.encode_from_tokens_scheduled(clip.tokenize(TEXT))[0][0].clone()


def test_class_photos_unload_the_text_encoder(tmp_path):
    clip = picture_models.make_clip()
    before = _encode(clip)
    assert _loaded(clip)
    given = {"class_noun": "man", "prompt": "a photo of a {class}", "negative": "", "count": 1,
             "seed": 3, "width": 64, "height": 48, "steps": 1, "cfg": 1.0, "sampler": "euler",
             "scheduler": "normal", "guidance": 3.5, "judge_photos": "off"}
    ClassPhotosNode.execute(training_models.make_model("sd15"), clip, picture_models.make_vae(),
                            **given)
    assert not _loaded(clip)
    assert torch.equal(_encode(clip), before)


@pytest.mark.parametrize(("technique", "loaded"), [("lora", False), ("lora of text encoders", True),
                                                   ("textual inversion", True)])
def test_train_unloads_text_encoders_that_learn_nothing(technique, loaded, tmp_path, monkeypatch):
    job = technique_jobs.make_job("sd15", tmp_path, technique_jobs.make_recipe(technique))
    _encode(job.clip)
    found = []

    def run(given, *listeners):
        found.append(_loaded(given.clip))
        raise runtime.Interrupted

    monkeypatch.setattr(session, "run", run)
    with pytest.raises(runtime.Interrupted):
        nodes.TrainNode.execute(job.model, job.training_set, job.subject, job.recipe, 1, "",
                                "output/loras", "fp16", clip=job.clip)
    assert found == [loaded]


def test_a_monitors_prompts_are_encoded_once_and_the_text_encoder_unloaded(tmp_path):
    job = technique_jobs.make_job("sd15", tmp_path, technique_jobs.make_recipe("lora"))
    speaker = looking._LearnedClip(job, types.SimpleNamespace(text=None))
    before = _encode(job.clip)
    for _ in range(2):
        assert torch.equal(pictures.encode_text(speaker, TEXT)[0][0], before)
        assert not _loaded(job.clip)


def test_the_text_encoder_is_unloaded_once_for_all_texts_of_all_looks(tmp_path, monkeypatch):
    row, unloaded, real = np.zeros((1, 128)), [], runtime.unload
    monkeypatch.setattr(looking, "judge_for", lambda subject, backend: Judge(
        "dlib", row[0], True, row, ("a.jpg",), row))
    looks = Monitor(every=1, prompts=("a photo of {subject}", "{subject} smiling"),
                    negative="blurred", pictures=2, width=32, height=32,
                    sampling=Sampling(steps=1, cfg=2.0), rule=StopRule(patience=0))
    job = technique_jobs.make_job("sd15", tmp_path, technique_jobs.make_recipe("lora", steps=2),
                                  monitor=looks)

    def unload(patcher):
        unloaded.append(patcher is job.clip.patcher)
        real(patcher)

    monkeypatch.setattr(runtime, "unload", unload)
    outcome = session.run(job, technique_jobs.ignore)
    assert len(outcome.looks) == 2 and unloaded == [True] and not _loaded(job.clip)
