"""The layers that a LoRA file holds, whoever wrote it, with ComfyUI's words for their parts.

Files name a layer by its path in the trainer's network and a part by the trainer's own word. Read
here are PEFT's, diffusers' of all times, kohya's, LyCORIS', OneTrainer's and ai-toolkit's words;
which layer of the host a name means is `host_places`' subject.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

MODEL = "model"
_DOWN = r"(?:\.lora_A|\.lora_down|_lora\.down|\.lora\.down|\.lora_linear_layer\.down)"
_UP = r"(?:\.lora_B|\.lora_up|_lora\.up|\.lora\.up|\.lora_linear_layer\.up)"
# PEFT writes the adapter's name between a part's and `weight` unless asked otherwise.
_ADAPTER = r"(?:\.(?P<adapter>(?!bias$|weight$)[^.]+))?"
_WHOLE = ("alpha", "dora_scale", "diff", "diff_b", "w_norm", "b_norm", "set_weight",
          "reshape_weight", "oft_blocks", "rescale", "a1.weight", "a2.weight", "b1.weight",
          "b2.weight")
_PARTS = tuple((re.compile(f"(?P<stem>.+?){pattern}"), part) for pattern, part in (
    (rf"{_DOWN}{_ADAPTER}(?:\.weight)?", "lora_down.weight"),
    (rf"{_UP}{_ADAPTER}(?:\.weight)?", "lora_up.weight"),
    (r"\.lora_mid\.weight", "lora_mid.weight"),
    (rf"\.lora_B{_ADAPTER}\.bias", "lora_bias"),
    (rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?", "magnitude"),
    *((rf"\.{part}{_ADAPTER}", part) for part in (
        *(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
        *(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t1", "t2")))),
    *((rf"\.{re.escape(part)}", part) for part in _WHOLE)))
# Parts of PEFT's other techniques, which ComfyUI has not.
_OTHER = re.compile(r"(?P<stem>.+?)\.(?P<part>(?:lora|oft|boft|ia3|vera|hra)_\w+)(?:\..*)?")
KNOWN_PARTS = frozenset(part for _, part in _PARTS)
# What stands before a layer's path, and the part of a checkpoint that it tells; "": none.
_HEADS = {"base_model.model.": "", "module.": "", "_orig_mod.": "",
          **dict.fromkeys(("model.diffusion_model.", "diffusion_model.", "unet.", "transformer.",
                           "lora_unet_", "lora_transformer_", "lycoris_"), MODEL),
          "text_encoder.": "text 1", "text_encoder_2.": "text 2", "text_encoder_3.": "text 3",
          "lora_te_": "text 1", "lora_te1_": "text 1", "lora_te2_": "text 2",
          "lora_te3_": "text 3"}
_TEXT_PATH = re.compile(r"(?:text_encoders_.*|encoder_layers_\d+_.*|encoder_block_\d+_.*)")

Place = tuple[str, str]  # part of the checkpoint, path in it with `_` for every dot


@dataclass(frozen=True, eq=False)
class FileLayer:
    """One layer of a file."""

    name: str  # as the file has it
    parts: Mapping[str, torch.Tensor]  # by ComfyUI's words; `magnitude` and `lora_bias` are PEFT's

    @property
    def place(self) -> Place:
        """Where it belongs."""
        return place(self.name)

    @property
    def is_text(self) -> bool:
        """Whether it is a text encoder's."""
        part, path = self.place
        return part.startswith("text") or (not part and bool(_TEXT_PATH.fullmatch(path)))

    @property
    def rank(self) -> int | None:
        """How many dimensions its change has; None where its parts do not tell."""
        for part in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if part in self.parts:
                return len(self.parts[part])
        return None


def file_layers(tensors: Mapping[str, torch.Tensor]) -> list[FileLayer]:
    """A file's tensors by layer, in the file's order.

    What no trainer is known to write stays a part by its own name, so that it can be told of.
    """
    found: dict[tuple[Place, str], tuple[str, dict[str, torch.Tensor]]] = {}
    for key, tensor in tensors.items():
        stem, adapter, part = _parsed(key)
        at = 0
        # A layer that a file holds twice under two names is two layers.
        while part in found.get((place(stem), f"{adapter} {at}"), ("", {}))[1]:
            at += 1
        found.setdefault((place(stem), f"{adapter} {at}"), (stem, {}))[1][part] = tensor
    return [FileLayer(stem, parts) for stem, parts in found.values()]


def place(stem: str) -> Place:
    """The part of a checkpoint and the path in it that a layer's name tells."""
    part = ""
    while (head := next((head for head in _HEADS if stem.startswith(head)), None)) is not None:
        stem, part = stem.removeprefix(head), part or _HEADS[head]
    path = stem.replace(".", "_").replace("_processor_", "_").removeprefix("text_model_")
    if part != MODEL:  # diffusers before 0.19 named attention so in text encoders too
        path = re.sub(r"_self_attn_to_([kqv])$", r"_self_attn_\1_proj", path)
        path = re.sub(r"_self_attn_to_out$", "_self_attn_out_proj", path)
    return part, path


def _parsed(key: str) -> tuple[str, str, str]:
    """A tensor's layer, its adapter's name and its part."""
    for pattern, part in _PARTS:
        match = pattern.fullmatch(key)
        if match is not None:
            return match["stem"], match.groupdict().get("adapter") or "", part
    match = _OTHER.fullmatch(key)
    if match is not None:
        return match["stem"], "", match["part"]
    stem, _, part = key.rpartition(".")
    return stem, "", part
