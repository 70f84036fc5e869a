"""The node that puts what was trained back on a MODEL and a CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ... import models, runtime
from ...errors import LikenessError
from ...schema import schema
from .scales import PEFT_CONFIG
from .trained import apply_trained, find_file, word_of

_NONE, _OUTPUT = "none", "output/loras/"


class ApplyTrainedNode(io.ComfyNode):
    """Applies the LoRA and the new word of one run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessApplyTrained", feature="training", display_name="Likeness Apply Trained",
            description="Puts what Train has saved on a MODEL and a CLIP: the LoRA, the new word "
                        "(embedding), or both of one run; and LoRAs of other trainers, with an "
                        "account of what of them was applied. Gives the MODEL, the CLIP and the "
                        "word to write into a prompt. The embedding may lie outside "
                        "models/embeddings.",
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that the files were trained for; it "
                                                "stays as it was, the output is a clone."),
                io.Clip.Input("clip", tooltip="Its CLIP; it stays as it was, the output is a "
                                              "clone. Use that clone for the prompts."),
                io.Combo.Input("lora", options=[_NONE, *_lora_names()], default=_NONE,
                               tooltip="LoRA file from models/loras or output/loras, of any "
                                       "trainer; files of torch (.pt, .ckpt, .bin) are read "
                                       "without executing anything. none: only the embedding. "
                                       "`lora_path` wins over it."),
                io.Float.Input("strength_model", default=1.0, min=-4.0, max=4.0, step=0.05,
                               tooltip="How strongly the LoRA acts on the MODEL. 1 is as trained; "
                                       "lower it when pictures look stiff or copied."),
                io.Float.Input("strength_clip", default=1.0, min=-4.0, max=4.0, step=0.05,
                               tooltip="How strongly the LoRA acts on the text encoders, where it "
                                       "was trained there too. 1 is as trained. The embedding has "
                                       "no strength; weight its word in the prompt."),
                io.String.Input("lora_path", default="", optional=True,
                                tooltip="Path or name of a LoRA file in place of the choice above; "
                                        "connect `lora_path` of Train."),
                io.String.Input("embedding", default="", optional=True,
                                tooltip="Path or name of an embedding file. Empty: the one of the "
                                        "LoRA's run, if there is one."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The MODEL with the LoRA as ordinary "
                                                              "patches."),
                io.Clip.Output(display_name="clip", tooltip="The CLIP with the LoRA, whose prompts "
                                                            "find the embedding."),
                io.String.Output(display_name="trigger",
                                 tooltip="What a prompt calls the person by: `embedding:name`, or "
                                         "the trigger word where no new word was trained."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: files, layers and words that were applied and that "
                                         "were left out, warnings that say why, encoders that know "
                                         "the word, an example prompt."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora: str = _NONE, lora_path: str | None = "",
                           embedding: str | None = "", **_: Any) -> str:
        try:
            files = _files(lora, lora_path or "", embedding or "")
        except LikenessError as err:
            return str(err)
        found = [file for file in files if file is not None]
        if files[0] is not None:
            found += files[0].parent.glob(PEFT_CONFIG)
        stats = [(str(file), file.stat()) for file in found]
        return json.dumps([(name, info.st_size, info.st_mtime_ns) for name, info in stats])

    @classmethod
    def execute(cls, model, clip, lora: str, strength_model: float, strength_clip: float,
                lora_path: str = "", embedding: str = "") -> io.NodeOutput:
        if clip is None:
            raise LikenessError("This checkpoint has no text encoder; connect a CLIP loader to "
                                "Apply Trained.")
        files = _files(lora, lora_path, embedding)
        applied = apply_trained(model, clip, *files, strength_model, strength_clip)
        text = json.dumps(applied.report, indent=2)
        return io.NodeOutput(applied.model, applied.clip, applied.trigger, text,
                             ui=ui.PreviewText(text))


def _files(lora: str, lora_path: str, embedding: str) -> tuple[Path | None, Path | None]:
    """The LoRA file and the embedding file that the inputs mean."""
    loras, words = _folders("loras"), _folders("embeddings")
    roots = [runtime.output_directory(), *loras, *words]
    chosen = None
    if lora_path.strip():
        chosen = find_file(lora_path, loras, roots, "LoRA")
    elif lora.startswith(_OUTPUT):
        chosen = find_file(lora.removeprefix(_OUTPUT), loras[-1:], roots, "LoRA")
    elif lora != _NONE:
        chosen = models.full_path("loras", lora)
    if embedding.strip():
        return chosen, find_file(embedding, words, roots, "embedding")
    return chosen, None if chosen is None else word_of(chosen, words)


def _folders(kind: str) -> list[Path]:
    """The host's folders of a kind, and last the one that Train saves to by default."""
    return [*(Path(folder) for folder in folder_paths.get_folder_paths(kind)),
            runtime.output_directory() / kind]


def _lora_names() -> list[str]:
    saved = runtime.output_directory() / "loras"
    names = sorted(path.relative_to(saved).as_posix() for path in saved.rglob("*.safetensors"))
    return [*models.file_names("loras"), *(_OUTPUT + name for name in names)]


NODES: list[type[io.ComfyNode]] = [ApplyTrainedNode]
