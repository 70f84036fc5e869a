"""The examples of docs/automation, run as they stand against a real server."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image, ImageChops

from launcher.hosts.host import ROOT
from launcher.makers import sample_photos

DOCS = ROOT / "docs" / "automation"
WORKFLOW = ROOT / "workflows" / "api" / "coach_photos.json"


@pytest.mark.parametrize("command", [[sys.executable, str(DOCS / "coach.py")],
                                     ["bash", str(DOCS / "coach.sh")]], ids=["python", "curl"])
def test_an_example_brings_the_coachs_page(host, tmp_path, command):
    photos, page = tmp_path / "photos", tmp_path / "page.png"
    photos.mkdir()
    sample_photos.write(photos)
    done = subprocess.run([*command, host.client.url, str(photos), str(WORKFLOW), str(page)],
                          capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    pages = sorted((host.output / "likeness").glob("coach-*.png"),
                   key=lambda path: path.stat().st_mtime_ns)
    with Image.open(page) as picture, Image.open(pages[-1]) as saved:
        assert ImageChops.difference(picture.convert("RGB"), saved.convert("RGB")).getbbox() is None
