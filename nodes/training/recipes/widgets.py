"""The inputs that recipe nodes share, each described once."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .fields import Optimizer, Precision, Schedule, Target, Timesteps


def values(kind: Any) -> list[str]:
    """The choices of an enumeration as a combo lists them."""
    return [member.value for member in kind]


def pace(steps: int, learning_rate: float, rate_tooltip: str) -> list[io.Input]:
    """How long and how fast a technique learns."""
    return [
        io.Int.Input("steps", default=steps, min=2, max=100000,
                     tooltip="Optimiser steps. Published face settings use 27 to 200 per photo; "
                             "more learns the face harder and bends to prompts less."),
        io.Float.Input("learning_rate", default=learning_rate, min=1e-8, max=1.0, step=1e-7,
                       round=False, tooltip=rate_tooltip),
    ]


ADAPTER_RATE = ("Size of a step. Published face settings lie round 1e-4; lower it when pictures "
                "turn noisy or waxy. Prodigy finds the rate itself and takes 1.")


def rank(default: int, tooltip: str) -> list[io.Input]:
    """Width and scale of an adapter."""
    return [
        io.Int.Input("rank", default=default, min=1, max=512, tooltip=tooltip),
        io.Float.Input("alpha", default=float(default), min=0.01, max=1024.0, step=0.5,
                       tooltip="The adapters' output is scaled by alpha / rank; keep it equal to "
                               "rank unless a published setting says otherwise."),
    ]


def target(default: Target = Target.ATTENTION_FEED_FORWARD) -> io.Input:
    """Which layers learn."""
    return io.Combo.Input("target", options=values(Target), default=default.value,
                          tooltip="Which layers learn, from few to all. Cross-attention alone is a "
                                  "choice for UNets; SD3 and FLUX have none. Convolutions learn "
                                  "texture too and make larger files.")


def common(checkpointing: bool = True) -> list[io.Input]:
    """Batches, optimiser, what the loss weighs and how the model computes."""
    return [
        io.Int.Input("batch_size", default=1, min=1, max=64,
                     tooltip="Photos per batch, one row each. Raise it for smoother learning when "
                             "memory allows, and lower steps with it."),
        io.Combo.Input("schedule", options=values(Schedule), default=Schedule.CONSTANT.value,
                       tooltip="How the learning rate goes on after the warm-up: level, or down to "
                               "zero at the end."),
        io.Int.Input("warmup", default=0, min=0, max=10000,
                     tooltip="Steps over which the learning rate rises from near zero; 10 to 100 "
                             "steadies a high rate."),
        io.Combo.Input("optimizer", options=values(Optimizer), default=Optimizer.ADAMW.value,
                       tooltip="How gradients become steps. AdamW is what most published face "
                               "settings assume; 8-bit and Adafactor take less memory, Prodigy "
                               "finds its own rate, Lion wants a third of AdamW's rate. All but "
                               "AdamW and Adafactor need a package, which the error names."),
        io.Boolean.Input("gradient_checkpointing", default=checkpointing,
                         tooltip="Computes each block twice and stores a fraction of the memory. "
                                 "Switch it off when memory is plenty: steps get faster, results "
                                 "stay equal."),
        io.Float.Input("background", default=0.2, min=0.01, max=1.0, step=0.01,
                       tooltip="Loss weight of everything but the face, which weighs 1. Lower "
                               "keeps clothes and rooms out of what is learned; 1 treats the "
                               "picture evenly."),
        io.Float.Input("caption_dropout", default=0.05, min=0.0, max=0.99, step=0.01,
                       tooltip="Share of photos that train on the empty caption, which keeps "
                               "classifier-free guidance working; 0 to 0.1."),
        io.Float.Input("min_snr", default=5.0, min=0.0, max=100.0, step=0.5,
                       tooltip="Min-SNR gamma for SD1.5 and SDXL: evens out noise levels and "
                               "learns faster. 0 is off. Flow models (SD3, FLUX) need none and get "
                               "none; the report says what was used."),
        io.Combo.Input("timesteps", options=values(Timesteps), default=Timesteps.AUTO.value,
                       tooltip="How noise levels are drawn. Auto: uniform for SD1.5 and SDXL, "
                               "logit-normal for flow models."),
        io.Float.Input("shift", default=0.0, min=0.0, max=20.0, step=0.05,
                       tooltip="Time shift of flow models' noise levels. 0 is the model's own, 1 "
                               "none, higher trains more on the coarse picture."),
        io.Combo.Input("precision", options=values(Precision), default=Precision.AUTO.value,
                       tooltip="Number format of the frozen model's computation; what learns is "
                               "always float32. Auto takes the model's own, bfloat16 in place of "
                               "float16."),
    ]


def adapter_extras() -> list[io.Input]:
    """What every adapter technique may vary further.

    Optional, so that prompts saved before they existed still run.
    """
    return [
        io.Boolean.Input("rank_stabilised", default=False, optional=True,
                         tooltip="Scales by alpha / square root of rank (rsLoRA), which keeps high "
                                 "ranks learning; leave it off below rank 32."),
        io.Float.Input("rank_dropout", default=0.0, min=0.0, max=0.9, step=0.05, optional=True,
                       tooltip="Share of the ranks that each step leaves out; 0.1 to 0.3 holds "
                               "back learning few photos by heart. Ranks are dropped, not inputs: "
                               "every technique and both passes of gradient checkpointing share "
                               "that draw."),
        io.String.Input("block_ranks", default="", multiline=True, optional=True,
                        tooltip="Other ranks for some layers, one `part of the layer's path = "
                                "rank` per line, such as `output_blocks = 32`; 0 leaves layers "
                                "out. Empty: the same rank everywhere."),
        io.Boolean.Input("text_encoder", default=False, optional=True,
                         tooltip="Teaches the text encoders too; Train then needs CLIP. It learns "
                                 "a name faster and forgets other words sooner."),
        io.Float.Input("text_rate", default=0.5, min=0.01, max=10.0, step=0.05, optional=True,
                       tooltip="The text encoders' learning rate as a share of `learning_rate`; "
                               "published settings use 0.1 to 0.5."),
    ]
