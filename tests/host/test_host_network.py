"""The pack asks no network by itself: every test's host refuses and tells it; the guard works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

GUARD = Path(__file__).parent / "no_network"


@pytest.mark.parametrize("folder, told", [("comfyui-likeness", True), ("another-pack", False)])
@pytest.mark.parametrize("code, refused", [
    ("socket.create_connection(('192.0.2.1', 80), 1)", True),
    ("socket.getaddrinfo('example.invalid', 80)", True),
    ("socket.create_connection(('127.0.0.1', 1), 1)", False),
])
def test_the_guard_refuses_and_tells_what_the_pack_asks(tmp_path, folder, told, code, refused):
    file = tmp_path / folder / "node.py"
    file.parent.mkdir()
    file.write_text(f"import socket\ntry:\n    {code}\nexcept OSError as err:\n    print(err)\n")
    log = tmp_path / "network.log"
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(GUARD), "LIKENESS_PACK": "/nowhere",
                               "LIKENESS_NETWORK_LOG": str(log)})
    assert done.returncode == 0, done.stderr
    assert ("refused here" in done.stdout) == refused
    assert log.exists() == (refused and told)


def test_the_host_of_the_tests_is_guarded(host):
    (process,) = [each for each in psutil.process_iter(["cmdline"])
                  if str(host.output) in (each.info["cmdline"] or ())]
    assert process.environ()["LIKENESS_NETWORK_LOG"].startswith(str(host.folder))
    assert str(GUARD) in process.environ()["PYTHONPATH"]
