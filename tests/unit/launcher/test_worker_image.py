"""The worker's image: linted, and its parts tried without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launcher.hosts.host import ROOT

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI")
LINTER = shutil.which("hadolint", path=str(Path(sys.executable).parent))
OWN_HOST = ROOT / ".host" not in COMFYUI.parents


@pytest.mark.skipif(LINTER is None and (OWN_HOST or sys.platform != "linux"),
                    reason="a user's own ComfyUI has no linter for Dockerfiles")
def test_the_dockerfile_has_no_faults():
    assert LINTER, "the embedded host's test packages bring hadolint"
    done = subprocess.run([LINTER, str(DOCKER / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_has_the_system_packages_that_the_tests_need():
    needed = set(re.findall(r"\[lib[\w.-]+\]=([\w.-]+)", (ROOT / ".ci" / "run").read_text("utf-8")))
    assert needed and needed == set(re.findall(r"\blib[a-z0-9.-]+", DOCKERFILE))


def test_compose_opens_the_port_of_the_image_to_this_machine_alone():
    (service,) = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"].values()
    port = re.search(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE).group(1)
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    build = service["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).samefile(DOCKER / "Dockerfile")
    home = re.search(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE).group(1)
    inside = {re.sub(r"\$\{.*?\}", "models", volume).split(":")[1]
              for volume in service["volumes"]}
    models = yaml.safe_load((DOCKER / "model_paths.yaml").read_text("utf-8"))["worker"]["base_path"]
    assert inside == {models, *(f"{home}/.host/ComfyUI/{name}" for name in ("input", "output"))}


def test_what_is_left_out_of_the_image_is_not_needed_in_it():
    left_out = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").split()
    for name in ("run.py", "launcher", "nodes", "web", "workflows", "docker", "__init__.py"):
        assert name not in left_out and (ROOT / name).exists()


def test_comfyui_starts_with_the_images_options_and_model_folders(tmp_path):
    entry = json.loads(re.search(r"^ENTRYPOINT (\[.*\])", DOCKERFILE, re.MULTILINE | re.DOTALL)
                       .group(1).replace("\\\n", ""))
    models = tmp_path / "models"
    (models / "loras").mkdir(parents=True)
    paths = (DOCKER / "model_paths.yaml").read_text("utf-8")
    config = tmp_path / "paths.yaml"
    config.write_text(paths.replace("/home/worker/models", str(models)))
    done = subprocess.run(
        [sys.executable, str(COMFYUI / "main.py"), *entry[2:], "--cpu", "--quick-test-for-ci",
         "--base-directory", str(tmp_path), "--disable-all-custom-nodes", "--disable-api-nodes",
         "--extra-model-paths-config", str(config), "--database-url", "sqlite:///:memory:"],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Adding extra search path loras {models / 'loras'}" in done.stdout + done.stderr
