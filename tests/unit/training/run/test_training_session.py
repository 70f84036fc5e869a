"""Whole jobs: kept and resumed state, the saved file, and what ends a run."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import comfy.lora
import numpy as np
import pytest
import torch
import training_models
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from likeness.nodes import files, runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.sockets import Subject
from likeness.nodes.training.export import lora as export
from likeness.nodes.training.export.keys import layer_keys
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.run import resume, session
from likeness.nodes.training.run.job import ANEW, run_inputs, run_key
from likeness.nodes.training.steps import state
from likeness.nodes.training.steps.loop import Trainer
from safetensors import safe_open
from safetensors.torch import save_file

ARCHITECTURES = training_models.ARCHITECTURES
SUBJECT = Subject("Ann", "ohwx", "woman", (), (), {}, {}, np.zeros((478, 3)))


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _job(name, folder, model=None, seed=1, file_type="fp16", **fields) -> session.Job:
    recipe = LoRARecipe(**{"steps": 6, "rank": 4, "alpha": 8.0, "learning_rate": 1e-3,
                           "gradient_checkpointing": False, **fields})
    return session.Job(model or training_models.make_model(name),
                       training_models.make_training_set(folder, name), SUBJECT, recipe, seed,
                       "ann", folder / "loras", folder / "work", file_type)


def _ignore(result) -> None:
    pass


def _cancel_after(steps):
    def on_step(result):
        if result.step == steps:
            raise runtime.Interrupted

    return on_step


def _stored(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).clone() for key in file.keys()}, file.metadata()


@pytest.mark.parametrize("file_type", list(export.FILE_TYPES))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_saved_file_reloads_through_the_stock_loader_with_equal_output(name, file_type,
                                                                           tmp_path):
    model = training_models.make_model(name)
    weights = training_models.weights(model)
    outcome = session.run(_job(name, tmp_path, model, file_type=file_type, steps=4), _ignore)
    limit = {"fp32": 3e-4, "fp16": 2e-3, "bf16": 5e-3}[file_type]
    assert outcome.report["reload_error"] < limit
    tensors, _ = _stored(outcome.path)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    stems = {key.rsplit(".lora_", 1)[0] for key in tensors if ".lora_" in key}
    assert len(stems) == outcome.report["layers"] and all(stem in keys for stem in stems)
    runtime.load_models([model])
    training_models.assert_same_weights(model, weights)


def test_a_layer_that_learned_next_to_nothing_does_not_fail_the_reload_check(tmp_path):
    job = _job("flux", tmp_path, alpha=0.3)
    trainer = Trainer(job.model, job.training_set, job.recipe, 1)
    list(trainer.run())
    with torch.inference_mode(False), torch.no_grad():
        # Below the smallest normal float16: a quarter of the value may be rounded away.
        next(iter(trainer.adapters.layers.values())).up.mul_(1e-4)
    names = layer_keys(job.model, trainer.adapters.layers)
    tensors = export.lora_tensors(trainer.adapters, names, torch.float16)
    export.write_lora(tmp_path / "small.safetensors", tensors, {})
    assert export.check_file(tmp_path / "small.safetensors", job.model, trainer)[1] < 0.01


def test_the_reload_check_fails_for_a_file_with_another_scale(tmp_path, monkeypatch):
    made = export.lora_tensors

    def wrong(*arguments):
        return {key: value * 2 if key.endswith("alpha") else value
                for key, value in made(*arguments).items()}

    monkeypatch.setattr(export, "lora_tensors", wrong)
    with pytest.raises(LikenessError, match="does not load as it was trained"):
        session.run(_job("sd15", tmp_path), _ignore)
    assert not list((tmp_path / "loras").iterdir())
    assert len(list((tmp_path / "work").glob("*.state"))) == 1


def test_the_reload_check_fails_for_a_file_without_a_layer(tmp_path, monkeypatch):
    made = export.lora_tensors

    def incomplete(*arguments):
        return {key: value for key, value in made(*arguments).items() if "single" not in key}

    monkeypatch.setattr(export, "lora_tensors", incomplete)
    with pytest.raises(LikenessError, match="layer `single_blocks"):
        session.run(_job("flux", tmp_path), _ignore)


def test_kohya_names_and_shapes_are_written(tmp_path):
    outcome = session.run(_job("sd15", tmp_path, target="all linear", steps=2), _ignore)
    tensors, _ = _stored(outcome.path)
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    assert tensors[f"{stem}.lora_down.weight"].shape == (4, 64)
    assert tensors[f"{stem}.lora_up.weight"].shape == (32, 4)
    assert tensors[f"{stem}.alpha"].shape == () and tensors[f"{stem}.alpha"] == 8.0
    stem = "lora_unet_down_blocks_0_attentions_0_proj_in"
    assert tensors[f"{stem}.lora_down.weight"].shape == (4, 32, 1, 1)
    assert tensors[f"{stem}.lora_up.weight"].shape == (32, 4, 1, 1)
    assert all(value.dtype == torch.float16 for key, value in tensors.items() if "lora_" in key
               and "alpha" not in key)


def test_ambiguous_kohya_names_give_way_to_the_generic_ones(tmp_path, monkeypatch):
    known = comfy.lora.model_lora_keys_unet

    def clashing(model, key_map):
        found = known(model, key_map)
        found["lora_unet_double_blocks_0_img_attn_qkv"] = "diffusion_model.other.weight"
        return found

    monkeypatch.setattr(comfy.lora, "model_lora_keys_unet", clashing)
    outcome = session.run(_job("flux", tmp_path, steps=2), _ignore)
    assert "diffusion_model.double_blocks.0.img_attn.qkv.lora_up.weight" in outcome.tensors
    assert "lora_unet_double_blocks_0_img_attn_proj.lora_up.weight" in outcome.tensors


def test_the_file_says_how_it_was_made_and_names_nobody_else(tmp_path):
    job = _job("sdxl", tmp_path, steps=2)
    outcome = session.run(job, _ignore)
    _, fields = _stored(outcome.path)
    assert fields["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert fields["ss_base_model_version"] == "sdxl_base_v1-0"
    assert fields["modelspec.trigger_phrase"] == fields["likeness.trigger"] == "ohwx"
    assert json.loads(fields["likeness.recipe"]) == job.recipe.as_dict()
    assert json.loads(fields["likeness.photos"]) == [item.photo_sha256
                                                     for item in job.training_set.items]
    assert fields["ss_network_dim"] == "4" and fields["ss_network_alpha"] == "8.0"
    assert "photo0.jpg" not in json.dumps(fields)
    assert fields["likeness.run"] == outcome.report["run"]


def _assert_same_files(one, other):
    (ours, fields), (truth, true_fields) = one, other
    assert fields == true_fields and ours.keys() == truth.keys()
    assert all(torch.equal(value, truth[key]) for key, value in ours.items())


def test_the_same_job_writes_the_same_file(tmp_path):
    job = _job("flux", tmp_path)
    trained = session.run(job, _ignore)
    first = _stored(trained.path)
    trained.path.unlink()
    again = session.run(job, _ignore)
    _assert_same_files(_stored(again.path), first)
    assert list((tmp_path / "loras").iterdir()) == [again.path]
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(("name", "file_type"), [("flux", "fp16"), ("sd15", "fp32")])
def test_a_finished_run_is_loaded_and_not_trained_again(name, file_type, tmp_path, monkeypatch):
    job = _job(name, tmp_path, file_type=file_type, target="all linear")
    first = session.run(job, _ignore)
    written = first.path.stat().st_mtime_ns
    steps = []
    monkeypatch.setattr(Trainer, "_step", lambda *given: steps.append(given))
    again = session.run(job, steps.append)
    assert steps == [] and first.path.stat().st_mtime_ns == written
    assert again.path == first.path and again.losses == first.losses
    assert again.tensors.keys() == first.tensors.keys()
    assert all(torch.equal(value, first.tensors[key]) for key, value in again.tensors.items())
    of_this_run = {"seconds_per_step", "seconds_without_identity", "reload_error", "resumed_at",
                   "reused"}
    assert {key: value for key, value in again.report.items() if key not in of_this_run} == {
        key: value for key, value in first.report.items() if key not in of_this_run}
    assert (first.report["reused"], again.report["reused"]) == (False, True)
    assert again.report["reload_error"] < 1e-2 and again.report["seconds_per_step"] is None
    model_keys = again.model.patches.keys()
    assert model_keys == first.model.patches.keys() and len(model_keys) == first.report["layers"]


def _replace(path, content):
    path.unlink()  # the file may still be mapped
    path.write_bytes(content)


def _change(path, edit):
    tensors, fields = _stored(path)
    edit(tensors, fields)
    path.unlink()
    save_file(tensors, path, fields)


@pytest.mark.parametrize("damage", [
    lambda path: _replace(path, path.read_bytes()[:-100]),
    lambda path: _replace(path, b""),
    lambda path: _change(path, lambda tensors, fields: tensors.popitem()),
    lambda path: _change(path, lambda tensors, fields: fields.pop("likeness.losses")),
    lambda path: _change(path, lambda tensors, fields: next(
        value for key, value in tensors.items() if key.endswith("alpha")).mul_(2)),
], ids=["cut off", "empty", "a layer gone", "no losses", "another scale"])
def test_a_damaged_file_of_a_finished_run_is_trained_anew(damage, tmp_path, caplog):
    job = _job("flux", tmp_path, steps=2)
    path = session.run(job, _ignore).path
    good = _stored(path)
    damage(path)
    seen = []
    again = session.run(job, lambda result: seen.append(result.step))
    assert seen == [1, 2] and not again.report["reused"]
    assert f"{path.name} is damaged" in caplog.text
    _assert_same_files(_stored(path), good)


def test_a_whole_file_of_another_run_is_not_overwritten(tmp_path):
    job = _job("flux", tmp_path, steps=2)
    path = session.run(job, _ignore).path
    _change(path, lambda tensors, fields: fields.update({"likeness.run": "another"}))
    content = path.read_bytes()
    with pytest.raises(LikenessError, match="is not of this run.* choose another `name`") as err:
        session.run(job, _ignore)
    assert "\n" not in str(err.value) and path.read_bytes() == content


def test_another_recipe_seed_or_base_is_another_file(tmp_path):
    job = _job("flux", tmp_path, steps=2)
    other = training_models.make_model("flux", seed=1)
    jobs = [job, dataclasses.replace(job, seed=2), dataclasses.replace(job, model=other),
            _job("flux", tmp_path, job.model, steps=2, rank=5)]
    assert len({session.run(each, _ignore).path for each in jobs}) == 4


def _shifted(model, shift):
    return ModelSamplingSD3().patch(model, shift)[0]


def _patched(model, strength, value=0.05):
    layer = "diffusion_model.joint_blocks.0.x_block.attn.proj.weight"
    patched = model.clone()
    change = torch.full_like(model.model.state_dict()[layer], value)
    assert patched.add_patches({layer: ("diff", (change,))}, strength)
    return patched


def _key_of(job) -> str:
    return run_key(run_inputs(job, session.make_trainer(job)))


def test_another_noise_schedule_is_another_run(tmp_path):
    plain = _job("sd3", tmp_path)
    jobs = [plain, *(dataclasses.replace(plain, model=_shifted(plain.model, shift))
                     for shift in (1.0, 9.0))]
    keys = [_key_of(job) for job in jobs]
    assert len(set(keys)) == 3
    assert [_key_of(job) for job in jobs] == keys
    again = dataclasses.replace(plain, model=_shifted(plain.model, 9.0))
    assert _key_of(again) == keys[2]


def test_a_run_cancelled_under_another_schedule_is_not_taken_up(tmp_path):
    job = _job("sd3", tmp_path)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(2))
    shifted = dataclasses.replace(job, model=_shifted(job.model, 9.0))
    with pytest.raises(LikenessError, match="stopped at step 2 .*the model has changed"):
        session.run(shifted, _ignore)
    shifted = dataclasses.replace(shifted, unfinished=ANEW)
    assert session.run(shifted, _ignore).report["resumed_at"] == 0
    assert session.run(job, _ignore).report["resumed_at"] == 2
    assert len(list((tmp_path / "loras").iterdir())) == 2


def test_a_patched_base_is_told_by_its_patches_content_and_strength(tmp_path):
    plain = _job("sd3", tmp_path)
    models = [plain.model, _patched(plain.model, 1.0), _patched(plain.model, 0.5),
              _patched(plain.model, 1.0, value=0.06)]
    keys = [_key_of(dataclasses.replace(plain, model=model)) for model in models]
    assert len(set(keys)) == 4
    again = _patched(plain.model, 1.0)
    assert again.patches_uuid != models[1].patches_uuid
    assert _key_of(dataclasses.replace(plain, model=again)) == keys[1]
    assert _key_of(plain) == keys[0]


def test_files_of_another_precision_lie_side_by_side(tmp_path):
    job = _job("flux", tmp_path, steps=2)
    half = session.run(job, _ignore).path
    whole = session.run(dataclasses.replace(job, file_type="fp32"), _ignore).path
    assert half != whole
    kinds = [_stored(path)[0].popitem()[1].dtype for path in (half, whole)]
    assert sorted(path.name for path in (half, whole)) == sorted(
        path.name for path in (tmp_path / "loras").iterdir()) and kinds[0] != kinds[1]


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_a_cancelled_run_keeps_its_state_and_goes_on_exactly(name, tmp_path):
    whole = session.run(_job(name, tmp_path / "whole"), _ignore)
    model = training_models.make_model(name)
    weights, tree = training_models.weights(model), training_models.tree(model)
    job = _job(name, tmp_path / "parts", model)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(4))
    assert training_models.tree(model) == tree
    training_models.assert_same_weights(model, weights)
    assert len(list((tmp_path / "parts" / "work").glob("*.state"))) == 1
    assert not (tmp_path / "parts" / "loras").exists()
    seen = []
    resumed = session.run(job, lambda result: seen.append(result.step))
    assert seen == [5, 6] and resumed.report["resumed_at"] == 4
    assert resumed.losses == whole.losses
    _assert_same_files(_stored(resumed.path), _stored(whole.path))
    assert not list((tmp_path / "parts" / "work").iterdir())


def test_resuming_is_exact_in_weights_and_optimiser(tmp_path):
    job = _job("flux", tmp_path, schedule="cosine", warmup=2)
    straight = Trainer(job.model, job.training_set, job.recipe, 1)
    assert len(list(straight.run())) == 6
    first = Trainer(job.model, job.training_set, job.recipe, 1)
    assert [result.step for result in first.run(until=3)] == [1, 2, 3]
    state.write_state(tmp_path / "run.state", first.state("key"))
    second = Trainer(job.model, job.training_set, job.recipe, 1)
    second.restore(state.read_state(tmp_path / "run.state"))
    assert [result.step for result in second.run()] == [4, 5, 6]
    ours, truth = second.state("key"), straight.state("key")
    assert ours.losses == truth.losses
    assert all(torch.equal(value, truth.tensors[key]) for key, value in ours.tensors.items())
    for index, values in ours.optimizer["optimizer"]["state"].items():
        for key, value in values.items():
            assert torch.equal(value, truth.optimizer["optimizer"]["state"][index][key])


def test_an_unfinished_run_with_another_recipe_is_refused_with_what_changed(tmp_path):
    job = _job("flux", tmp_path)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(2))
    changed = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, learning_rate=2e-3))
    with pytest.raises(LikenessError, match="`learning_rate` was 0.001 and is 0.002") as caught:
        session.run(changed, _ignore)
    assert "rank" not in str(caught.value) and "\n" not in str(caught.value)
    anew = dataclasses.replace(changed, unfinished=ANEW)
    assert session.run(anew, _ignore).report["resumed_at"] == 0
    assert session.run(job, _ignore).report["resumed_at"] == 2


def test_an_unfinished_run_with_other_photos_is_refused_with_their_names(tmp_path):
    job = _job("flux", tmp_path)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(2))
    fewer = dataclasses.replace(job.training_set, items=job.training_set.items[1:], key="other")
    with pytest.raises(LikenessError, match="photo photo0.jpg is gone"):
        session.run(dataclasses.replace(job, training_set=fewer), _ignore)


def test_another_name_is_another_run(tmp_path):
    job = _job("flux", tmp_path, steps=2)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(1))
    renamed = dataclasses.replace(job, name="other", seed=2)
    assert session.run(renamed, _ignore).report["resumed_at"] == 0


def test_starting_anew_forgets_the_same_runs_state(tmp_path):
    job = _job("flux", tmp_path)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(2))
    seen = []
    session.run(dataclasses.replace(job, unfinished=ANEW), lambda step: seen.append(step.step))
    assert seen[0] == 1


def test_a_damaged_state_is_named(tmp_path):
    job = _job("flux", tmp_path)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(2))
    path, = (tmp_path / "work").glob("*.state")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(LikenessError, match=f"{path.name} cannot be read .* delete it"):
        session.run(job, _ignore)


def test_a_state_of_another_run_is_refused(tmp_path):
    job = _job("flux", tmp_path)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(2))
    path, = (tmp_path / "work").glob("*.state")
    state.write_state(path, state.RunState("another", 3, {}, {}, (1.0,)))
    with pytest.raises(LikenessError, match="belongs to another run; delete it or"):
        session.run(job, _ignore)


def _no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_full_while_saving_is_one_sentence_and_nothing_is_half_written(tmp_path,
                                                                              monkeypatch):
    job = _job("flux", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("likeness.nodes.tensors.save_file", _no_space)
        with pytest.raises(LikenessError, match="trained but not saved.*No space left") as caught:
            session.run(job, _ignore)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "loras").iterdir())
    seen = []
    outcome = session.run(job, lambda result: seen.append(result.step))
    assert seen == [] and outcome.path.exists() and outcome.report["seconds_per_step"] is None


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "run.state"
    state.write_state(path, state.RunState("key", 3, {}, {}, (1.0,)))
    monkeypatch.setattr(files.os, "fsync", _no_space)
    with pytest.raises(LikenessError, match="could not be written .*No space left"):
        state.write_state(path, state.RunState("key", 4, {}, {}, (1.0, 2.0)))
    assert [file.name for file in tmp_path.iterdir()] == ["run.state"]
    monkeypatch.undo()
    assert state.read_state(path).step == 3


def test_only_the_newest_states_of_abandoned_runs_are_kept(tmp_path):
    paths = [tmp_path / f"{name}.state" for name in "edcba"]
    for age, path in enumerate(paths):
        state.write_state(path, state.RunState("key", 3, {}, {}, (1.0,)))
        os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / "notes.txt").write_text("mine")
    assert sorted(tmp_path.glob("*.state")) == sorted(paths[-state.KEPT_STATES:])
    # A run that goes on is the newest again, and costs the oldest of the others only.
    state.write_state(paths[-3], state.RunState("key", 4, {}, {}, (1.0,)))
    state.write_state(paths[0], state.RunState("key", 1, {}, {}, (1.0,)))
    assert sorted(tmp_path.glob("*.state")) == sorted([paths[0], paths[-3], paths[-1]])
    assert (tmp_path / "notes.txt").exists()


def test_of_large_states_only_those_are_kept_that_fit_beside_the_newest(tmp_path, monkeypatch):
    def write(name, values, age):
        learned = {"a": torch.zeros(values)}
        state.write_state(tmp_path / f"{name}.state", state.RunState(name, 1, learned, {}, ()))
        (tmp_path / f"{name}.json").write_text("{}")
        os.utime(tmp_path / f"{name}.state", (age, age))

    monkeypatch.setattr(state, "KEPT_BYTES", 100_000)
    write("old", 10_000, 1000)
    write("middle", 10_000, 1001)
    assert {path.name for path in tmp_path.iterdir()} == {"old.state", "old.json", "middle.state",
                                                          "middle.json"}
    write("new", 10_000, 1002)
    assert {path.stem for path in tmp_path.iterdir()} == {"middle", "new"}
    # The newest and the one before it stay, however large they are.
    write("large", 40_000, 1003)
    assert {path.stem for path in tmp_path.iterdir()} == {"new", "large"}
    write("small", 10, 1004)
    assert {path.stem for path in tmp_path.iterdir()} == {"large", "small"}
    assert state.read_state(tmp_path / "large.state").step == 1


def test_changed_settings_do_not_pile_up_states(tmp_path):
    job = _job("flux", tmp_path)
    for seed in range(5):
        with pytest.raises(runtime.Interrupted):
            session.run(dataclasses.replace(job, seed=seed, unfinished=ANEW), _cancel_after(2))
    assert len(list((tmp_path / "work").glob("*.state"))) == state.KEPT_STATES
    assert len(list((tmp_path / "work").iterdir())) == 2 * state.KEPT_STATES  # a note for each
    assert session.run(dataclasses.replace(job, seed=4), _ignore).report["resumed_at"] == 2


def test_a_cancel_is_still_a_cancel_when_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", _no_space)
    with pytest.raises(runtime.Interrupted):
        session.run(_job("flux", tmp_path), _cancel_after(2))


@pytest.mark.parametrize(("share", "steps"), [(0.0, [0, 2, 2, 4, 4, 6]),
                                              (1e9, [0, 2, 2, 2, 2, 6])],
                         ids=["quick disk", "slow disk"])
def test_states_are_written_along_the_way_as_often_as_the_disk_allows(share, steps, tmp_path,
                                                                      monkeypatch):
    monkeypatch.setattr(session, "STATE_EVERY", 2)
    monkeypatch.setattr(resume, "WRITE_SHARE", share)
    job, found = _job("flux", tmp_path), []

    def look(result):
        files = list((tmp_path / "work").glob("*.state"))
        found.append(torch.load(files[0], weights_only=True)["step"] if files else 0)

    session.run(job, look)
    assert found == steps


def test_the_report_tells_the_figures(tmp_path):
    outcome = session.run(_job("sd15", tmp_path, background=0.25), _ignore)
    report = json.loads(json.dumps(outcome.report))
    assert report["steps"] == 6 and report["layers"] == 160 and report["photos"] == 3
    assert report["bytes"]["lora"] == outcome.path.stat().st_size
    learned = sum(value.numel() for key, value in outcome.tensors.items() if "lora_" in key)
    learned -= sum(value.numel() for key, value in outcome.tensors.items() if "alpha" in key)
    model = training_models.make_model("sd15").model.diffusion_model
    share = learned / sum(value.numel() for value in model.parameters())
    assert report["parameters"] == learned
    assert report["parameters_share"] == pytest.approx(share, abs=1e-6)
    assert report["face_share"] == pytest.approx(16 / (16 + 240 * 0.25), abs=1e-3)
    assert report["seconds_per_step"] > 0 and report["min_snr"] == 5.0
    assert report["first_loss"] == pytest.approx(outcome.losses[0], abs=1e-6)


def test_an_unknown_file_precision_is_refused(tmp_path):
    with pytest.raises(LikenessError, match="`file_precision` must be one of fp16, bf16, fp32"):
        session.run(_job("flux", tmp_path, file_type="int8"), _ignore)


def test_a_training_set_of_somebody_else_is_refused(tmp_path):
    other = dataclasses.replace(SUBJECT, name="Bob", trigger="bbx")
    with pytest.raises(LikenessError, match=r"made from `Ann` \(trigger ohwx\), not from `Bob`"):
        session.run(dataclasses.replace(_job("sd15", tmp_path), subject=other), _ignore)


@pytest.mark.parametrize(("fields", "advice"), [
    ({"batch_size": 2}, "Set `batch_size` to 1 and `accumulate` to 2"),
    ({"gradient_checkpointing": False}, "Switch `gradient_checkpointing` on"),
    ({"gradient_checkpointing": True}, "Set `base_weights` to fp8")])
def test_running_out_of_memory_names_the_cheapest_way_out(fields, advice, tmp_path, monkeypatch):
    model = training_models.make_model("flux")
    before = training_models.tree(model)
    real = Trainer.terms

    def exhausted(trainer, *inputs):
        if trainer.step == 2:
            raise runtime.OutOfMemory("no memory left")
        return real(trainer, *inputs)

    monkeypatch.setattr(Trainer, "terms", exhausted)
    with pytest.raises(LikenessError, match=f"step 3; what was learned up to step 2 .* {advice}"):
        session.run(_job("flux", tmp_path, model, **{"gradient_checkpointing": True, **fields}),
                    _ignore)
    assert training_models.tree(model) == before
    assert len(list((tmp_path / "work").glob("*.state"))) == 1


def test_every_step_is_written_by_term_with_rate_and_gradient(tmp_path):
    job = _job("flux", tmp_path, schedule="cosine", outside_weight=0.5)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(3))
    outcome = session.run(job, _ignore)
    told = json.loads(Path(outcome.report["history"]).read_text())
    assert [step["step"] for step in told["steps"]] == [1, 2, 3, 4, 5, 6]
    assert [step["loss"] for step in told["steps"]] == list(outcome.losses)
    for step in told["steps"]:
        assert set(step["terms"]) == {"photo", "outside"} and step["gradient_norm"] > 0
        assert sum(step["terms"].values()) == pytest.approx(step["loss"])
    assert told["steps"][-1]["learning_rate"] < told["steps"][0]["learning_rate"]
    seconds = outcome.report["training_seconds"]
    assert seconds > 0 and outcome.report["peak_bytes"] is None  # on a CPU
    again = session.run(job, _ignore)
    assert again.report["history"] == outcome.report["history"] and again.report["reused"]
    assert again.report["training_seconds"] == seconds
    Path(outcome.report["history"]).unlink()
    assert session.run(job, _ignore).report["training_seconds"] is None


def test_the_cost_of_a_run_counts_what_came_before_an_interruption(tmp_path, monkeypatch):
    job, spent = _job("flux", tmp_path), []
    cancel = _cancel_after(3)

    def until_cancelled(result):
        spent.append(result.seconds)
        cancel(result)

    monkeypatch.setattr(runtime, "peak_bytes", lambda device: 100)
    with pytest.raises(runtime.Interrupted):
        session.run(job, until_cancelled)
    monkeypatch.setattr(runtime, "peak_bytes", lambda device: 50)
    report = session.run(job, lambda result: spent.append(result.seconds)).report
    assert len(spent) == 6
    assert report["training_seconds"] == pytest.approx(sum(spent), abs=2e-3)
    assert report["peak_bytes"] == 100


def test_a_run_can_be_saved_in_another_format_when_saving_fails(tmp_path, monkeypatch):
    job = _job("flux", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("likeness.nodes.tensors.save_file", _no_space)
        with pytest.raises(LikenessError, match="trained but not saved"):
            session.run(job, _ignore)
    seen = []
    other = dataclasses.replace(job, file_type="fp32")
    assert session.run(other, seen.append).report["resumed_at"] == 6 and seen == []


def test_a_set_of_a_person_is_no_class_photos(tmp_path):
    job = _job("flux", tmp_path)
    with pytest.raises(LikenessError, match="`class_photos` shows `Ann` .*connect Class Photos"):
        session.run(dataclasses.replace(job, class_set=job.training_set), _ignore)


def test_one_photo_trains_and_the_report_warns(tmp_path):
    job = _job("flux", tmp_path, steps=2)
    alone = dataclasses.replace(job.training_set, items=job.training_set.items[:1], key="alone")
    report = session.run(dataclasses.replace(job, training_set=alone), _ignore).report
    assert report["photos"] == 1 and "One photo" in report["warnings"][0]


def test_a_run_started_anew_leaves_older_ones_in_peace(tmp_path):
    job = _job("flux", tmp_path)
    with pytest.raises(runtime.Interrupted):
        session.run(job, _cancel_after(2))
    changed = [dataclasses.replace(job, seed=seed) for seed in (2, 3)]
    with pytest.raises(LikenessError, match="`seed` was 1 and is 2"):
        session.run(changed[0], _ignore)
    assert session.run(dataclasses.replace(changed[0], unfinished=ANEW), _ignore).path.exists()
    assert session.run(changed[1], _ignore).path.exists()
    assert session.run(job, _ignore).report["resumed_at"] == 2
