"""The training bench at its smallest: it runs, and says everything it promises."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_the_quick_training_bench_gives_every_ratio_as_a_finite_number(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCH)])
    import bench_training
    from training_figures import BARS

    bench_training.main(tmp_path / "figures.json", quick=True)
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["ratios"].keys() == {bar.name for bar in BARS}
    assert all(math.isfinite(value) and value > 0 for value in written["ratios"].values())
    assert all(row["seconds"]["floor"] > 0 for row in written["cases"])
