"""Training speed and size against core's node, diffusers with peft, and what no training can save.

    python tests/bench/bench_training.py [--json FILE] [--quick] [--only WORDS]

Contenders take turns step by step, so that a busy machine slows all of them alike, and steps are
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
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch is imported: threads that it starts would take as many cores as there are.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", KINETO_LOG_LEVEL="99")

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI")
ALL = "all linear and convolutions"

logger = logging.getLogger("likeness")


@dataclass(frozen=True)
class Case:
    """One network at one batch size and rank; a row of the result."""

    network: str  # a name of training_networks
    side: int  # of the latents
    batch: int
    rank: int
    rounds: int  # timed, after one that warms up
    precision: str = "bfloat16"  # of weights and computation
    full: bool = True  # all contenders, not only those whose figures depend on the batch

    @property
    def name(self) -> str:
        """What reports call it."""
        kind = "" if self.precision == "bfloat16" else " " + self.precision
        return f"{self.network} batch {self.batch} rank {self.rank}{kind}"


def _cases() -> tuple[Case, ...]:
    sizes = (("sd15", 24), ("flux", 24))
    rows = [Case(network, side, batch, rank, rounds, full=batch == 1)
            for network, side in sizes for rank in (8, 64)
            for batch, rounds in ((1, 5), (2, 2), (4, 2))]
    return (*rows, *(Case(network, side, 1, 8, 2, "float32") for network, side in sizes))


CASES = _cases()
QUICK = (Case("flux_small", 8, 1, 8, 1), Case("flux_small", 8, 4, 8, 1, full=False))


def main(json_path: str | Path | None = None, quick: bool = False,
         only: str = "") -> dict[str, Any]:
    """Measure every case whose name has some words; write the JSON where told; return it."""
    _make_importable()
    import torch

    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in QUICK if quick else CASES:
            if only not in case.name:
                continue
            rows.append(_measure(case, Path(folder)))
            logger.info("%s", _line(rows[-1]))
    from training_figures import summarise, table

    bars = summarise(rows)
    result = {"ratios": {name: round(row["mean"], 4) for name, row in bars.items()},
              "bars": bars, "cases": rows, "unit": "CPU seconds of one thread per step; bytes",
              "load": os.getloadavg(), "torch": torch.__version__}
    for line in table(bars):
        logger.info("%s", line)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=2))
    return result


def _make_importable() -> None:
    """ComfyUI on the CPU, the pack as `likeness`, the launcher and the tests' helpers."""
    folders = (ROOT, ROOT / "tests" / "bench", ROOT / "tests" / "parity",
               ROOT / "tests" / "unit" / "training")
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path]
    if "likeness" in sys.modules:
        return
    from launcher.tiny.models import import_comfyui

    import_comfyui(COMFYUI)
    spec = importlib.util.spec_from_file_location(
        "likeness", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["likeness"] = module
    spec.loader.exec_module(module)


def _makers(case: Case, networks: Any, folder: Path) -> dict[str, Callable[[], Any]]:
    """Who takes part. `plain` is without checkpointing, `all` and `same` train what core trains.

    Core trains every dense layer and convolution, as `all` does, and norms and biases beside them.
    """
    from training_contenders import Core, Floor, Ours, Peft, Setting

    usual = Setting(case.side, case.batch, case.rank)
    plain = Setting(case.side, case.batch, case.rank, checkpointing=False)
    makers = {
        "floor": lambda: Floor(networks, usual, folder),
        "ours": lambda: Ours(networks, usual, folder),
        "ours_all": lambda: Ours(networks, usual, folder, target=ALL),
        "core_same": lambda: Core(networks, usual, adapters="fp32"),
    }
    if case.full:
        makers |= {
            "core": lambda: Core(networks, usual),
            "core_own_attention": lambda: Core(networks, usual, own_attention=True),
            "floor_plain": lambda: Floor(networks, plain, folder),
            "ours_plain": lambda: Ours(networks, plain, folder),
            "ours_all_plain": lambda: Ours(networks, plain, folder, target=ALL),
            "peft": lambda: Peft(networks, plain),
        }
        if not case.network.startswith("flux"):  # autograd refuses core's FLUX like this
            makers["core_plain"] = lambda: Core(networks, plain, adapters="fp32")
    return makers


def _measure(case: Case, folder: Path) -> dict[str, Any]:
    import torch
    from training_networks import Networks

    networks = Networks(case.network, getattr(torch, case.precision))
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        live = {}
        for name, make in _makers(case, networks, folder).items():
            live[name] = make()
            stack.callback(live[name].close)
            times[name] = []
        for number in range(case.rounds + 1):
            for name, contender in live.items():
                seconds = contender.step()
                times[name] += [seconds] if number else []
        row = {"name": case.name, "network": case.network, "parameters": networks.parameters,
               "batch": case.batch, "rank": case.rank, "precision": case.precision,
               "latent": case.side, "rounds": case.rounds,
               "seconds": {name: round(statistics.median(values), 5)
                           for name, values in times.items()},
               "spread": {name: [round(min(values), 5), round(max(values), 5)]
                          for name, values in times.items()}}
        if case.full:
            row |= _memory(case, networks, live)
    return row


def _memory(case: Case, networks: Any, live: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Bytes of one step of each contender that trains; graphs where nothing is computed again."""
    from training_contenders import Setting, core_node
    from training_memory import core_step_bytes, graph_bytes, step_bytes

    usual = Setting(case.side, case.batch, case.rank)
    plain = Setting(case.side, case.batch, case.rank, checkpointing=False)
    found = {name: step_bytes(live[name].step)
             for name in ("ours", "ours_all", "ours_plain", "ours_all_plain", "peft")}
    found |= {"core": core_step_bytes(networks, usual),
              "core_same": core_step_bytes(networks, usual, adapters="fp32")}
    graphs = {name: graph_bytes(live[name].step, networks.weights.values())
              for name in ("ours_plain", "ours_all_plain")}
    graphs["peft"] = graph_bytes(live["peft"].step, live["peft"].weights)
    node = core_node(networks, plain, adapters="fp32")
    graphs["core_plain"] = graph_bytes(lambda: node(1, lambda: None), networks.weights.values())
    return {"kept": {name: figures["kept"] for name, figures in found.items()},
            "peak": {name: figures["peak"] for name, figures in found.items()}, "graph": graphs}


def _line(row: Mapping[str, Any]) -> str:
    times = ", ".join(f"{name} {seconds:.3f}" for name, seconds in row["seconds"].items())
    sizes = "".join(f"; {kind} MB: " + ", ".join(
        f"{name} {size / 1e6:.1f}" for name, size in row[kind].items())
        for kind in ("peak", "graph") if kind in row)
    return f"{row['name']}: {times} s{sizes}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--only", default="", metavar="WORDS",
                        help="cases whose name has these, such as `sd15 batch 1`")
    chosen = parser.parse_args()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(sys.stdout))
    main(chosen.json, chosen.quick, chosen.only)
