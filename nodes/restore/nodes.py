"""Nodes that load a face restorer and restore faces without changing who is in the picture."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from comfy_api.latest import io, ui

from .. import models, runtime
from ..errors import LikenessError
from ..faces.recognise import backends
from ..incoming import require_pictures
from ..schema import RestorerType, SubjectType, schema
from . import pipeline
from .guard import make_judge
from .registry import NONE, Restorer, load_network

FEATURE = "restore"

_ACTIVATIONS = 1536 * 2**20  # bytes one 512-pixel face needs in the largest of the networks


def restorer_files() -> list[str]:
    """The files the loader offers; ONNX restorers of other packs share the folder."""
    return [name for name in models.file_names(models.RESTORERS)
            if not name.lower().endswith(".onnx")]


def network_of(restorer: Restorer, fidelity: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Run a restorer wherever the host puts its weights."""
    architecture, patcher = restorer.architecture, restorer.patcher

    def run(chips: torch.Tensor) -> torch.Tensor:
        runtime.throw_if_cancelled()
        runtime.load_models([patcher], memory_required=_ACTIVATIONS, whole=True)
        return architecture.call(patcher.model, chips.to(patcher.load_device), fidelity)
    return run


class LikenessLoadRestorer(io.ComfyNode):
    """Load a face restorer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessLoadRestorer", feature=FEATURE, display_name="Likeness Load Restorer",
            description="Loads GFPGAN, RestoreFormer or CodeFormer from models/facerestore_models. "
                        "Which one it is is told from the file's contents. 'none' makes Restore "
                        "Faces pass its pictures through.",
            inputs=[io.Combo.Input(
                "file", options=["none", *restorer_files()], default="none",
                tooltip="The restorer file. 'none' switches restoring off without rewiring. Mind "
                        "the licences: CodeFormer's weights are non-commercial, GFPGAN's contain "
                        "non-commercial parts.")],
            outputs=[RestorerType.Output(display_name="restorer",
                                         tooltip="Goes to Restore Faces.")])

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        if file == "none":
            return file
        status = models.full_path(models.RESTORERS, file).stat()
        return f"{file}:{status.st_size}:{status.st_mtime_ns}"

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        if file == "none":
            return io.NodeOutput(NONE)
        weights = runtime.load_weights(models.full_path(models.RESTORERS, file))
        architecture, network = load_network(weights, file)
        return io.NodeOutput(Restorer(file, architecture, runtime.wrap_module(network)))


class LikenessRestoreFaces(io.ComfyNode):
    """Restore faces, but never at the price of likeness."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessRestoreFaces", feature=FEATURE, display_name="Likeness Restore Faces",
            description="Cleans up faces in pictures. Measures likeness before and after, blends "
                        "down to the strongest setting that does not lower it, and leaves the face "
                        "as it was when every setting harms. Outside the face nothing changes.",
            inputs=[
                io.Image.Input("images", tooltip="The pictures whose faces shall be restored."),
                RestorerType.Input("restorer", tooltip="From Load Restorer. With 'none' the "
                                   "pictures pass through unchanged."),
                io.Float.Input(
                    "strength", default=0.8, min=0.0, max=1.0, step=0.05,
                    tooltip="How much of the restored face is blended in: 0 none, 1 only the "
                            "restored face. The most that the guard will try. Lower it when skin "
                            "looks like plastic."),
                io.Boolean.Input(
                    "guard", default=True,
                    tooltip="On: use the strongest setting up to `strength` that keeps the "
                            "likeness, down to leaving the face alone. Off: always use `strength`; "
                            "likeness is still reported."),
                io.Float.Input(
                    "allowed_loss", default=0.0, min=0.0, max=0.2, step=0.005,
                    tooltip="How much similarity the guard lets go, on the judge's own scale. 0 "
                            "accepts no loss. Raise it a little (0.01 to 0.03) when nearly good "
                            "faces stay unrestored. Used only with a subject."),
                io.Combo.Input(
                    "faces", options=list(pipeline.WHICH), default="all",
                    tooltip="Which faces of a picture to restore. 'most like the subject' needs a "
                            "subject and leaves everybody else alone."),
                io.Combo.Input(
                    "no_face", options=list(pipeline.NO_FACE), default="keep the picture",
                    tooltip="What to do with a picture without a face: keep it as it is and say so "
                            "in the report, or stop with an error."),
                io.Float.Input(
                    "fidelity", default=0.7, min=0.0, max=1.0, step=0.05,
                    tooltip="CodeFormer only: 0 invents the cleanest face, 1 stays closest to the "
                            "picture. GFPGAN and RestoreFormer have no such setting."),
                io.Combo.Input(
                    "judge", options=backends.ids(), default=backends.BOTH,
                    tooltip="The face recogniser that measures likeness: two together, and the "
                            "report says where they disagree, or one that the face adapter did "
                            "not use. " + backends.choices_text()),
                SubjectType.Input(
                    "subject", optional=True,
                    tooltip="Whose likeness the guard protects. Without a subject the guard only "
                            "asks that each face stays the same person as before restoring."),
            ],
            outputs=[
                io.Image.Output(display_name="images",
                                tooltip="The pictures, in the same size and order."),
                io.String.Output(
                    display_name="report",
                    tooltip="JSON: for each face the strength used and the likeness before and "
                            "after; status restored, unchanged or bypassed."),
            ])

    @classmethod
    def execute(cls, images, restorer, strength, guard, allowed_loss, faces, no_face, fidelity,
                judge, subject=None) -> io.NodeOutput:
        require_pictures(images, "images")
        settings = pipeline.Settings(strength, guard, faces, no_face)
        if faces == pipeline.SUBJECT_FACE and subject is None:
            raise LikenessError(f"`faces` is '{faces}' but no subject is connected; connect one, "
                                "or choose 'all' or 'largest'.")
        entries = []
        if restorer.chosen:
            images, entries = pipeline.restore_images(
                images, network_of(restorer, fidelity),
                make_judge(subject, judge, allowed_loss, guard), settings,
                runtime.progress_callback(len(images)))
        text = json.dumps(pipeline.report(entries, restorer, settings, judge), indent=1)
        return io.NodeOutput(images, text, ui={
            **ui.PreviewImage(images, cls=cls).as_dict(),
            **ui.PreviewText(text).as_dict()})


NODES: list[type[io.ComfyNode]] = [LikenessLoadRestorer, LikenessRestoreFaces]
