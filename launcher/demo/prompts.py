"""What the demo queues: the workflow of the pack, with settings for the checkpoint at hand."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ..checkpoints import Family
from ..client.refusals import Prompt
from ..client.workflows import load_workflow, with_settings
from ..demonstrator.install import CHECKPOINT, SIDE
from ..hosts.host import ROOT

WORKFLOW = ROOT / "workflows" / "api" / "selfies_to_headshots.json"
PICTURES = 8  # of each kind
# What the demonstrator is trained and sampled with; measured in tests/demonstrator/README.md.
_DEMONSTRATOR = {
    "checkpoint.ckpt_name": CHECKPOINT, "prepare.resolution": SIDE, "prepare.framing": "head",
    "recipe.steps": 700, "recipe.learning_rate": 3e-3, "recipe.rank": 16, "recipe.alpha": 32.0,
    "recipe.batch_size": 4, "recipe.target": "all linear and convolutions",
    "recipe.gradient_checkpointing": False,
    "canvas.width": SIDE, "canvas.height": SIDE, "canvas.batch_size": PICTURES,
    "sample.steps": 20, "sample.cfg": 2.5}
# ControlNets and face adapters belong to one model; the demo has none that would fit.
_WITHOUT_CONTROL = {"sample.positive": ["positive", 0], "sample.negative": ["negative", 0],
                    "sample.model": ["train", 0]}
_CONTROL = ("face_map", "pose_map", "face_control", "pose_control", "face_stack", "pose_stack",
            "apply_control", "face_adapter", "inject")


def with_demonstrator(class_noun: str) -> Prompt:
    """The workflow on the checkpoint that comes with the pack.

    Beside the styled pictures it draws the plain prompt before and after training from the same
    noise: nodes `before` and `after`.
    """
    prompt = with_settings(load_workflow(WORKFLOW), {
        **_WITHOUT_CONTROL, **_DEMONSTRATOR, "subject.class_noun": class_noun})
    prompt = {node: content for node, content in prompt.items() if node not in _CONTROL}
    prompt["identity"] = {"class_type": "LikenessIdentityLossOptions",
                          "inputs": {"identity_weight": 0.25, "identity_snr": 0.5,
                                     "identity_from": 0.4}, "_meta": {"title": "Identity loss"}}
    prompt["recipe"]["inputs"]["options"] = ["identity", 0]
    prompt["train"]["inputs"]["vae"] = ["checkpoint", 2]  # the recogniser sees pictures
    trigger = prompt["subject"]["inputs"]["trigger"]
    for name, model in (("before", "checkpoint"), ("after", "train")):
        _draw_plainly(prompt, name, model, f"photo of {trigger} {class_noun}, close-up")
    return prompt


def _draw_plainly(prompt: Prompt, name: str, model: str, words: str) -> None:
    """Add a branch that samples a model with a few words and saves what it draws as `name`."""
    sample, decode = deepcopy(prompt["sample"]), deepcopy(prompt["decode"])
    prompt[f"{name}_words"] = {"class_type": "CLIPTextEncode", "inputs": {
        "clip": ["checkpoint", 1], "text": words}}
    prompt[f"{name}_nothing"] = {"class_type": "CLIPTextEncode", "inputs": {
        "clip": ["checkpoint", 1], "text": ""}}
    sample["inputs"] |= {"model": [model, 0], "positive": [f"{name}_words", 0],
                         "negative": [f"{name}_nothing", 0]}
    decode["inputs"]["samples"] = [f"{name}_sample", 0]
    prompt |= {f"{name}_sample": sample, f"{name}_decode": decode,
               name: {"class_type": "SaveImage", "inputs": {
                   "images": [f"{name}_decode", 0], "filename_prefix": f"likeness/demo/{name}"}}}
    for part in ("words", "nothing", "sample", "decode"):
        prompt[f"{name}_{part}"]["_meta"] = {"title": f"{name.capitalize()}: {part}"}
    prompt[name]["_meta"] = {"title": name.capitalize()}


def with_checkpoint(checkpoint: str, family: Family | None) -> Prompt:
    """The workflow on a checkpoint of the user's, sized and sampled as its family wants."""
    settings: dict[str, Any] = {**_WITHOUT_CONTROL, "checkpoint.ckpt_name": checkpoint}
    if family is not None:
        settings |= {"prepare.resolution": family.side, "canvas.width": family.side,
                     "canvas.height": family.side * 5 // 4}
        if family.cfg is not None:
            settings |= {"sample.cfg": family.cfg, "sample.sampler_name": family.sampler,
                         "sample.scheduler": family.scheduler}
    changed = with_settings(load_workflow(WORKFLOW), settings)
    return {node: content for node, content in changed.items() if node not in _CONTROL}
