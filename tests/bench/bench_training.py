"""Training speed and size against core's TrainLoraNode, in one process, on random weights.

    python tests/bench/bench_training.py [--json FILE]

Contenders take turns in every round, so that a busy machine slows all of them alike, and steps are
timed in CPU seconds of the one computing thread. Figures are medians over all rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI")
RANK, PHOTOS = 8, 4

logger = logging.getLogger("likeness")


@dataclass(frozen=True)
class Case:
    """One model at one batch size."""

    model: str  # a name of launcher.tiny_checkpoints
    title: str
    latent: int  # side in latent pixels
    width: int  # of the text tokens
    batch: int
    rounds: int
    steps: int  # timed in a round, after one that warms up


CASES = (
    Case("sd15", "tiny", 16, 64, 1, 5, 3),
    Case("sd15", "tiny", 16, 64, 4, 3, 3),
    Case("demo", "sd15_320", 32, 768, 1, 3, 2),
    Case("demo", "sd15_320", 16, 768, 4, 2, 1),  # core runs 16 rows for these 4
)


def main(json_path: str | Path | None = None) -> dict[str, Any]:
    """Measure every case; write the JSON when a path is given; return it."""
    _make_importable()
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any] = {"rank": RANK, "unit": "CPU seconds per step", "cases": []}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for case in CASES:
            row = _measure(case, Path(folder))
            result["cases"].append(row)
            logger.info("%s", json.dumps(row))
        result["file"] = _file_figures(Path(folder))
        logger.info("%s", json.dumps(result["file"]))
    result["ratios"] = {f"{row['model']}_batch{row['batch']}": row["core_over_ours"]
                        for row in result["cases"]}
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=2))
    return result


def _make_importable() -> None:
    """ComfyUI on the CPU, the pack as `likeness`, and the launcher."""
    if "likeness" in sys.modules:
        return
    sys.path.append(str(ROOT))
    sys.path.append(str(ROOT / "tests" / "unit" / "training"))
    from launcher.tiny_models import import_comfyui

    import_comfyui(COMFYUI)
    spec = importlib.util.spec_from_file_location(
        "likeness", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["likeness"] = module
    spec.loader.exec_module(module)


def _measure(case: Case, folder: Path) -> dict[str, Any]:
    import training_models

    training_models.TEXT[case.model] = (case.width, 0, 4)
    model = training_models.make_model(case.model)
    contenders: dict[str, Callable[[], list[float]]] = {
        "ours_fp32": lambda: _ours(case, model, folder, "float32", checkpointing=False),
        "core_fp32": lambda: _core(case, model, "fp32", checkpointing=False),
        "ours_fp32_checkpointed": lambda: _ours(case, model, folder, "float32", True),
        "core_fp32_checkpointed": lambda: _core(case, model, "fp32", True),
        "ours_bf16_checkpointed": lambda: _ours(case, model, folder, "bfloat16", True),
        "core_bf16_checkpointed": lambda: _core(case, model, "bf16", True),  # core's default
        "ours_bf16": lambda: _ours(case, model, folder, "bfloat16", checkpointing=False),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(case.rounds):
        for name, run in contenders.items():
            times[name] += run()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "model": case.title, "batch": case.batch, "latent": case.latent,
        "parameters": sum(p.numel() for p in model.model.diffusion_model.parameters()),
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "core_over_ours": {
            name: round(medians[f"core_{theirs}"] / medians[f"ours_{ours}"], 3)
            for name, theirs, ours in (
                ("fp32", "fp32", "fp32"),
                ("fp32_checkpointed", "fp32_checkpointed", "fp32_checkpointed"),
                ("bf16_checkpointed", "bf16_checkpointed", "bf16_checkpointed"),
                ("core_default_over_ours_bf16", "bf16_checkpointed", "bf16"))},
    }


def _ours(case: Case, model: Any, folder: Path, precision: str,
          checkpointing: bool) -> list[float]:
    import training_models
    from likeness.nodes.training.loop import Trainer
    from likeness.nodes.training.recipes.adapters import LoRARecipe

    training_set = training_models.make_training_set(
        folder, case.model, ((case.latent, case.latent),) * PHOTOS, tokens=77)
    recipe = LoRARecipe(steps=case.steps + 1, rank=RANK, alpha=float(RANK), batch_size=case.batch,
                        gradient_checkpointing=checkpointing, precision=precision)
    seconds = []
    with closing(Trainer(model, training_set, recipe, seed=1).run()) as steps:
        for _ in range(recipe.steps):
            started = time.thread_time()
            next(steps)
            seconds.append(time.thread_time() - started)
    return seconds[1:]  # the first one warms up


def _core(case: Case, model: Any, dtype: str, checkpointing: bool) -> list[float]:
    import torch
    from comfy.weight_adapter import adapter_maps
    from comfy_extras.nodes_train import TrainLoraNode

    generator = torch.Generator().manual_seed(0)
    # Core's node takes lists, and fails on a single latent tensor.
    latents = [{"samples": torch.randn(1, 4, case.latent, case.latent, generator=generator)}
               for _ in range(PHOTOS)]
    positive = [[torch.randn(1, 77, case.width, generator=generator), {}] for _ in range(PHOTOS)]
    inputs = {"model": model, "positive": positive, "batch_size": case.batch,
              "grad_accumulation_steps": 1, "steps": case.steps + 1, "learning_rate": 1e-4,
              "rank": RANK, "optimizer": "AdamW", "loss_function": "MSE", "seed": 1,
              "training_dtype": dtype, "lora_dtype": dtype,
              "algorithm": next(iter(adapter_maps)), "gradient_checkpointing": checkpointing,
              "existing_lora": "[None]"}
    with _stamps() as stamps, redirect_stderr(StringIO()):
        TrainLoraNode.execute(latents=latents,
                              **{name: [value] for name, value in inputs.items()})
    return [after - before for before, after in zip(stamps, stamps[1:], strict=False)]


@contextmanager
def _stamps():
    """CPU time at each update of a progress bar: core's node updates it once a step."""
    import comfy.utils

    stamps: list[float] = []
    comfy.utils.set_progress_bar_global_hook(
        lambda *_, **__: stamps.append(time.thread_time()))
    try:
        yield stamps
    finally:
        comfy.utils.set_progress_bar_global_hook(None)


def _file_figures(folder: Path) -> dict[str, Any]:
    """Size and share of parameters of a rank 16 LoRA with the default preset."""
    import numpy as np
    import training_models
    from likeness.nodes.sockets import Subject
    from likeness.nodes.training import session
    from likeness.nodes.training.recipes.adapters import LoRARecipe

    training_models.TEXT["demo"] = (768, 0, 4)
    model = training_models.make_model("demo")
    training_set = training_models.make_training_set(folder, "demo", ((16, 16),), tokens=77)
    subject = Subject(training_set.subject, training_set.trigger, "person", (), (), {}, {},
                      np.zeros((478, 3)))
    job = session.Job(model, training_set, subject, LoRARecipe(steps=2), 1, "bench",
                      folder / "loras", folder / "work")
    report = session.run(job, lambda result: None).report
    return {"model": "sd15_320", "rank": 16,
            **{name: report[name] for name in ("bytes", "parameters", "parameters_share", "layers",
                                               "reload_error")}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    chosen = parser.parse_args().json
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(sys.stdout))
    main(chosen)
