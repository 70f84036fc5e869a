"""`bench all`: every measurement's figures in one file, and none lost when another fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from launcher import bench
from launcher.hosts.host import Host
from launcher.problems import Problem

WRITES = """import json, sys
json.dump({{"quick": "--quick" in sys.argv, "name": "{name}"}},
          open(sys.argv[sys.argv.index("--json") + 1], "w"))
"""


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path, Path(sys.executable), embedded=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    place = tmp_path / "bench"
    place.mkdir()
    for name in ("one", "two"):
        (place / f"bench_{name}.py").write_text(WRITES.format(name=name))
    monkeypatch.setattr(bench, "FOLDER", place)
    return place


def test_all_benches_stand_in_one_file(folder, host, tmp_path):
    file = tmp_path / "all.json"
    assert bench.run_bench("all", host, ["--quick"], file) == 0
    assert json.loads(file.read_text("utf-8")) == {
        name: {"quick": True, "name": name} for name in ("one", "two")}


def test_one_that_fails_is_named_and_loses_no_other(folder, host, tmp_path):
    (folder / "bench_broken.py").write_text("raise SystemExit(3)")
    file = tmp_path / "all.json"
    with pytest.raises(Problem, match=r"1 of 3 benches failed \(broken\)"):
        bench.run_bench("all", host, [], file)
    assert set(json.loads(file.read_text("utf-8"))) == {"one", "two"}
    assert bench.run_bench("broken", host, [], None) == 3


@pytest.mark.parametrize("name, json_file, sentence", [
    ("none", None, "There is no bench `none`; there is one, two, and `all`"),
    ("all", Path("nowhere") / "x.json", "The folder of .*x.json does not exist"),
])
def test_what_cannot_be_measured_is_told_before_a_host_is_made(folder, name, json_file, sentence):
    with pytest.raises(Problem, match=sentence):
        bench.check(name, json_file)
