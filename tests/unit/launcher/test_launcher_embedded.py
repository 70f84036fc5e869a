"""The embedded host: its pins, its stamp, and what is left to do after an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.hosts import cpu_wheels, embedded


@pytest.fixture
def place(tmp_path):
    """A set-up host that holds nothing but what the stamp promises."""
    made = embedded.Embedded(tmp_path / ".host")
    made.python.parent.mkdir(parents=True)
    made.comfyui.mkdir()
    made.python.touch()
    (made.comfyui / "main.py").touch()
    made.stamp.write_text(json.dumps(
        {"host": embedded._key(embedded.HOST_PINS, False), "wheels": "default"}))
    return made


def test_a_stamped_host_is_not_touched(place):
    before = sorted(place.root.rglob("*"))
    assert embedded.setup(place) == place.host()
    assert sorted(place.root.rglob("*")) == before


def test_the_stamp_depends_on_the_pins_and_on_the_kind_of_wheels(tmp_path):
    pins = tmp_path / "pins.txt"
    keys = set()
    for text in ("a==1", "a==2"):
        pins.write_text(text)
        keys |= {embedded._key(pins, cpu) for cpu in (False, True)}
    assert len(keys) == 4


def test_pins_without_cuda_keep_everything_else(tmp_path):
    pins = cpu_wheels.write_pins(embedded.HOST_PINS, tmp_path / "cpu.txt").read_text()
    assert "torch==2.13.0+cpu\n" in pins
    assert "torchvision==0.28.0\n" in pins and "numpy==2.4.6\n" in pins
    assert not any(name in pins for name in ("nvidia-", "cuda-", "triton"))


def test_the_test_pins_repeat_no_host_pin():
    names = [{line.split("==")[0] for line in file.read_text().splitlines() if "==" in line}
             for file in (embedded.HOST_PINS, embedded.TEST_PINS)]
    assert not names[0] & names[1]


@pytest.mark.skipif(embedded.ROOT / ".host" not in Path(sys.prefix).parents,
                    reason="this is the environment of a user's own ComfyUI")
def test_this_environment_has_the_pinned_versions():
    listed = subprocess.run([sys.executable, "-m", "pip", "list", "--format", "json"],
                            capture_output=True, text=True, check=True).stdout
    versions = {item["name"].lower(): item["version"].split("+")[0] for item in json.loads(listed)}
    pinned = dict(line.split("==") for line in embedded.HOST_PINS.read_text().splitlines()
                  if "==" in line and ";" not in line)
    for name in ("torch", "numpy", "mediapipe", "transformers", "safetensors"):
        assert versions[name] == pinned[name], name
