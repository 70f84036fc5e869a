"""The likeness bench: its arithmetic, and a run at its smallest from photos to figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCH)])
    import bench_likeness

    bench_likeness._find_modules()
    return bench_likeness


def curve(*points):
    from likeness_contenders import Curve, Point

    return Curve(tuple(Point(step, seconds, {"dlib": alike}, alike, step / 100, 16)
                       for step, seconds, alike in points))


def curves(ours):
    return {"ours": ours,
            "core": curve((100, 10.0, 0.3), (300, 30.0, 0.5), (600, 60.0, 0.4)),
            "peft": curve((100, 5.0, 0.2), (300, 15.0, 0.3))}


def test_the_time_to_likeness_is_that_of_the_first_look_as_good_as_the_peers_best(bench):
    found = bench._times(curves(curve((25, 4.0, 0.2), (50, 8.0, 0.35), (75, 12.0, 0.6),
                                      (100, 16.0, 0.55))), "dlib")
    assert found["over_core"] == pytest.approx(12 / 30)  # core is at its best after 30 seconds
    assert found["over_peft"] == pytest.approx(8 / 15, abs=1e-3)
    assert found["ours"] == {"likeness": 0.6, "copy": 0.75, "seconds": 12.0, "steps": 75}
    assert found["core"]["likeness"] == 0.5
    assert found["copy_as_core"] == 0.75 and found["copy_as_peft"] == 0.5, "as at that look"


def test_whoever_never_gets_there_counts_as_infinitely_slow(bench):
    slow = bench._times(curves(curve((25, 4.0, 0.1), (50, 8.0, 0.2))), "dlib")
    quick = bench._times(curves(curve((25, 4.0, 0.7))), "dlib")
    assert slow["over_core"] is None
    rows = [{"dlib": one, "mobilefacenet": one} for one in (quick, slow, slow)]
    assert bench._ratios(rows)["time_to_likeness_over_core (dlib)"] is None
    assert bench._ratios([rows[0], *rows[:2]])["time_to_likeness_over_core (dlib)"] == (
        quick["over_core"])


def test_medians_keep_the_range_of_likeness_and_leave_out_who_has_no_number(bench):
    def person(alike, seconds):
        return {"likeness": alike, "label": "LoRA",
                "curve": [{"seconds": seconds, "likeness": {"dlib": seconds / 10}}]}

    merged = bench._medians([person(0.2, 1.0), person(0.6, 3.0), person(None, 5.0)])
    assert merged == {"likeness": pytest.approx(0.4), "likeness range": [0.2, 0.6], "label": "LoRA",
                      "curve": [{"seconds": 3.0, "likeness": {"dlib": 0.3}}]}


def test_the_other_half_is_every_second_person_though_some_are_not_yet_measured(bench):
    def row(alike):
        return {"techniques": [{"label": "LoRA", "likeness": alike}]}

    result = bench._result([("a", row(0.1)), ("b", {}), ("c", row(0.3)), ("d", row(0.8))])
    assert result["people"] == ["a", "c", "d"]
    assert result["table"][0]["likeness"] == pytest.approx(0.3)
    assert result["table_of_the_other_half"][0]["likeness"] == 0.8


def test_the_quick_bench_measures_every_contender_on_one_person(bench, tmp_path):
    file = tmp_path / "figures.json"
    bench.main(file, count=1, only="headline", quick=True)
    written = json.loads(file.read_text("utf-8"))
    assert written["people"] == ["obama"]
    assert written["ratios"].keys() == {
        f"time_to_likeness_over_{peer} ({judge})" for peer in ("core", "peft")
        for judge in ("dlib", "mobilefacenet")}
    assert set(written["headline"]["curves"]) == {"ours", "core", "peft"}
    for points in written["headline"]["curves"].values():
        assert all(point["seconds"] > 0 and point["faces"] > 0 for point in points)
        # Training goes on from look to look and is not what drawing takes.
        assert [point["step"] for point in points] == sorted(point["step"] for point in points)
