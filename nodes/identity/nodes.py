"""Nodes that load a face adapter and inject a subject's face into a MODEL."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io, ui

from .. import models, runtime
from ..faces.recognise import backends
from ..schema import FaceAdapterType, SubjectType, schema
from .adapter import read_adapter
from .apply import InjectionSettings, apply_face, describe
from .blend import Combine
from .recogniser import (
    AUTO,
    NORMED,
    RAW,
    V1,
    V2,
    FaceAdapter,
    plus_shortcut,
    recogniser_of,
    wants_normed,
)
from .weighting import Weighting

FEATURE = "identity"


class LikenessLoadFaceAdapter(io.ComfyNode):
    """Reads an IP-Adapter FaceID file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessLoadFaceAdapter", feature=FEATURE, display_name="Likeness Load Face Adapter",
            description="Loads an IP-Adapter FaceID, FaceID Plus or FaceID Portrait file for SD1.5 "
                        "or SDXL. What the file is, is told from its contents. The face recogniser "
                        "that the adapter was trained with must be installed; published files need "
                        "InsightFace's buffalo_l, which is for non-commercial research only.",
            inputs=[
                io.Combo.Input("adapter", options=models.file_names(models.FACE_ADAPTERS),
                               tooltip="File in models/ipadapter. Must be made for the same model "
                                       "family (SD1.5 or SDXL) as the checkpoint."),
                io.Combo.Input("recogniser", options=[AUTO, *backends.single_ids()], default=AUTO,
                               tooltip="The face recogniser whose embeddings the adapter reads. "
                                       "auto: the file's own note, else buffalo_l for width 512 "
                                       "and dlib for width 128. Change it only for an adapter "
                                       "trained with another one: a wrong choice draws somebody "
                                       "else. " + backends.choices_text()),
                io.Combo.Input("embedding", options=[AUTO, NORMED, RAW], default=AUTO,
                               tooltip="Whether embeddings are scaled to length 1 (normed) or "
                                       "given as the recogniser makes them (raw). auto: normed, "
                                       "except for files that say otherwise or are named unnorm."),
                io.Combo.Input("plus_version", options=[AUTO, V1, V2], default=AUTO,
                               tooltip="Only for FaceID Plus files, whose versions 1 and 2 look "
                                       "alike inside. auto: the file's own note or its name. Set "
                                       "it when the file was renamed."),
            ],
            outputs=[FaceAdapterType.Output(display_name="adapter",
                                            tooltip="For Inject Face.")])

    @classmethod
    def fingerprint_inputs(cls, adapter: str, **_: Any) -> str:
        info = models.full_path(models.FACE_ADAPTERS, adapter).stat()
        return f"{info.st_size}:{info.st_mtime_ns}"

    @classmethod
    def execute(cls, adapter: str, recogniser: str = AUTO, embedding: str = AUTO,
                plus_version: str = AUTO) -> io.NodeOutput:
        weights = read_adapter(models.full_path(models.FACE_ADAPTERS, adapter),
                               runtime.load_weights)
        known = {backend.id: backend.dimension for backend in backends.BACKENDS}
        chosen = recogniser_of(weights, recogniser, known, adapter)
        backends.require(chosen)  # before anything slow runs
        loaded = FaceAdapter(adapter, weights, chosen, wants_normed(weights, embedding, adapter),
                             plus_shortcut(weights, plus_version, adapter))
        text = json.dumps(describe(loaded), indent=2)
        return io.NodeOutput(loaded, ui=ui.PreviewText(text))


class LikenessInjectFace(io.ComfyNode):
    """Lets a MODEL see a subject's face at every cross-attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessInjectFace", feature=FEATURE, display_name="Likeness Inject Face",
            description="Gives a MODEL the face of a subject while it samples: the reference "
                        "photos' embeddings become extra tokens for every cross-attention. Held-"
                        "out photos are not used. Connect it after other nodes that patch cross-"
                        "attention; they stay in force. Chained injections add up and do not keep "
                        "two people apart.",
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5 or SDXL MODEL; it stays unchanged, the "
                                                "output is a patched clone."),
                FaceAdapterType.Input("adapter", tooltip="From Load Face Adapter."),
                SubjectType.Input("subject", tooltip="Whose face. Only reference photos are used, "
                                                     "never held-out ones."),
                io.Float.Input("weight", default=0.8, min=0.0, max=3.0, step=0.05,
                               tooltip="Strength of the face, 0 to 3. 0 switches the node off, "
                                       "LoRA included. Usual 0.6 to 1; lower it when poses or "
                                       "styles stiffen, raise it when the likeness is weak."),
                io.Float.Input("start", default=0.0, min=0.0, max=1.0, step=0.01,
                               tooltip="Share of sampling at which the face begins to act, 0 the "
                                       "first step. Raise it to let the prompt settle the "
                                       "composition first. The LoRA acts from the beginning."),
                io.Float.Input("end", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="Share of sampling at which the face stops acting, 1 the "
                                       "last step. Lower it for more natural skin."),
                io.Float.Input("lora_strength", default=0.6, min=0.0, max=2.0, step=0.05,
                               tooltip="Strength of the LoRA inside the adapter file, 0 to 2; 0.6 "
                                       "suits published files. Set 0 when you load that LoRA "
                                       "separately, or in the second of two injections of the "
                                       "same file. Portrait files have none."),
                io.Combo.Input("combine", options=[AUTO, *(how.value for how in Combine)],
                               default=AUTO,
                               tooltip="How several references join. mean: one average face, in "
                                       "which photos with a longer embedding (clearer faces) count "
                                       "more. norm-average: one average face, all count the same. "
                                       "concat: each photo keeps its own tokens, slower with many. "
                                       "auto: concat for Portrait files, else mean."),
                io.Float.Input("plus_strength", default=1.0, min=0.0, max=3.0, step=0.05,
                               tooltip="FaceID Plus version 2 only: how much the look of the "
                                       "pictures (hair, light, framing) adds to the embedding, 0 "
                                       "to 3. Lower it when pictures copy the selfies."),
                io.ClipVision.Input("clip_vision", optional=True,
                                    tooltip="Only for FaceID Plus files: the CLIP vision encoder "
                                            "they were trained with, CLIP-ViT-H-14 for published "
                                            "files."),
                io.Combo.Input("weighting", options=[how.value for how in Weighting],
                               default=Weighting.EQUAL.value, optional=True,
                               tooltip="How much each reference counts in an average face. equal: "
                                       "all alike. quality: large, frontal faces count more; use "
                                       "it when the references are of mixed quality. Without "
                                       "effect with concat."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The MODEL that sees the face."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: adapter, recogniser, references used, layers "
                                         "patched, licences."),
            ])

    @classmethod
    def execute(cls, model: Any, adapter: FaceAdapter, subject: Any, weight: float, start: float,
                end: float, lora_strength: float, combine: str, plus_strength: float,
                clip_vision: Any = None, weighting: str = Weighting.EQUAL.value) -> io.NodeOutput:
        settings = InjectionSettings(weight, start, end, lora_strength, combine, plus_strength,
                                     weighting)
        patched, report = apply_face(model, adapter, subject, settings, clip_vision)
        text = json.dumps(report, indent=2)
        return io.NodeOutput(patched, text, ui=ui.PreviewText(text))


NODES: list[type[io.ComfyNode]] = [LikenessLoadFaceAdapter, LikenessInjectFace]
