"""A real ComfyUI server with the pack and tiny models, shared by all tests of this folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.client import runs
from launcher.client.api import Client
from launcher.client.refusals import Prompt
from launcher.client.runs import Run
from launcher.client.workflows import load_workflow, with_settings
from launcher.demonstrator.install import FILE as DEMONSTRATOR
from launcher.hosts import server
from launcher.hosts.links import link_folder
from launcher.tiny import models as tiny_models

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI")
sys.path.append(str(Path(__file__).resolve().parent))  # for the helpers beside the tests
RUN_SECONDS = 600.0
BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@dataclass(frozen=True)
class RunningHost:
    """The server and everything a test asks of it."""

    client: Client
    models: Mapping[str, Path]  # tiny model name -> file, as in launcher/tiny/models.py
    base: Path  # models and custom_nodes
    folder: Path  # this session's own: input, output, temp, user, host.log

    @property
    def input(self) -> Path:
        """The server's input folder."""
        return self.folder / "input"

    @property
    def output(self) -> Path:
        """The server's output folder."""
        return self.folder / "output"

    @property
    def log(self) -> str:
        """Everything the server has printed so far."""
        return (self.folder / "host.log").read_text(errors="replace")

    def run(self, prompt: Prompt, on_event: Callable[[dict[str, Any]], None] | None = None) -> Run:
        """Queue a prompt and wait for its end; the client's exceptions say what went wrong."""
        return runs.run(self.client, prompt, on_event, timeout=RUN_SECONDS)

    def run_workflow(self, path: Path, overrides: Mapping[str, Any] | None = None) -> Run:
        """Run a workflow file in API format with {"Node title.input": value} set."""
        return self.run(with_settings(load_workflow(path), overrides or {}))

    def cancel_at(self, value: int, node: str | None = None) -> Callable[[dict[str, Any]], None]:
        """An `on_event` that cancels its prompt once a node's progress has come so far.

        Hosts tell no more than ten values a second, so the one that is meant may be passed over.
        """
        asked: set[str] = set()

        def on_event(event: dict[str, Any]) -> None:
            data = event["data"]
            if event["type"] == "progress" and data["value"] >= value and (
                    node in (None, data["node"])) and data["prompt_id"] not in asked:
                asked.add(data["prompt_id"])  # a second cancel means something else
                self.client.interrupt(data["prompt_id"])

        return on_event

    def copy_photos(self, photos: list[Path], folder: str) -> str:
        """Put photos into a folder below the server's input folder; return its name."""
        target = self.input / folder
        target.mkdir(parents=True, exist_ok=True)
        for photo in photos:
            (target / photo.name).write_bytes(photo.read_bytes())
        return folder


class Graph:
    """Builds an API prompt node by node: `g = Graph(); ckpt = g.add("Loader", name="x")`."""

    def __init__(self) -> None:
        self.prompt: Prompt = {}

    def add(self, node_class: str, title: str | None = None, /, **inputs: Any) -> Callable[
            [int], list[Any]]:
        """Add a node; calling the result with an output's number gives a link to it.

        A node passed as an input stands for its first output.
        """
        node_id = str(len(self.prompt) + 1)

        def output(index: int = 0) -> list[Any]:
            return [node_id, index]

        output.id = node_id
        self.prompt[node_id] = {
            "class_type": node_class,
            "inputs": {name: value() if callable(value) else value
                       for name, value in inputs.items()},
            "_meta": {"title": title or node_class}}
        return output


@pytest.fixture(scope="session")
def new_graph() -> type[Graph]:
    """Makes empty prompts, for fixtures that several tests share."""
    return Graph


@pytest.fixture
def graph() -> Graph:
    """An empty prompt to build."""
    return Graph()


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """A ComfyUI server with the pack, the tiny architectures and every tiny model."""
    base = ROOT / ".host" / "test"
    folder = tmp_path_factory.mktemp("host")
    link_folder(ROOT, base / "custom_nodes" / "comfyui-likeness")
    for small in ("architectures", "vision"):
        link_folder(ROOT / "launcher" / "tiny" / small, base / "custom_nodes" / f"tiny_{small}")
    models = tiny_models.make(COMFYUI, base / "models")
    (base / "models" / "checkpoints" / DEMONSTRATOR.name).write_bytes(DEMONSTRATOR.read_bytes())
    folders = server.Folders(base, *(folder / name for name in ("input", "output", "temp",
                                                                "user")))
    # Nothing here needs the nodes of paid services, and starting without them is faster.
    # A download that the pack causes without being asked is refused and told at the end.
    asked = folder / "network.log"
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0", "LIKENESS_PACK": str(ROOT),
                   "LIKENESS_NETWORK_LOG": str(asked),
                   "PYTHONPATH": str(Path(__file__).parent / "no_network")}
    with server.start(Path(sys.executable), COMFYUI, folder / "host.log", folders=folders,
                      cpu=True, arguments=["--disable-api-nodes"],
                      environment=environment) as running:
        yield RunningHost(Client(running.url), models, base, folder)
    assert not asked.exists(), f"the pack wanted the network:\n{asked.read_text()[:4000]}"


@pytest.fixture(scope="module")
def place(host: RunningHost) -> Iterator[str]:
    """A folder of a module's own below the host's model folders, which outlive a session."""
    name = f"likeness_{uuid.uuid4().hex[:8]}"
    yield name
    for kind in ("loras", "embeddings", "checkpoints", "diffusion_models"):
        shutil.rmtree(host.base / "models" / kind / name, ignore_errors=True)


@pytest.fixture(scope="session")
def object_info(host: RunningHost) -> dict[str, Any]:
    """The running host's description of every node."""
    return host.client.object_info()


def _post(url: str, data: Mapping[str, Any]) -> None:
    request = urllib.request.Request(url, json.dumps(data).encode(),
                                     {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=30).close()


@pytest.fixture(scope="module")
def page(host: RunningHost) -> Iterator[Any]:
    """The frontend of the running host in headless Chromium.

    Of a module, not of the session: an open page draws all the time, a quarter of a core.
    """
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert browser_path, "Chromium is not installed; apt-get install chromium"
    # Otherwise a template dialog covers the canvas.
    _post(f"{host.client.url}/settings", {"Comfy.TutorialCompleted": True,
                                   "Comfy.InstalledVersion": "1.32.9"})
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=browser_path, args=BROWSER_FLAGS,
            viewport={"width": 1800, "height": 1000})
        page = context.new_page()
        page.goto(host.client.url)
        # Core's nodes come first, and the last of all register some time after the page is there.
        page.wait_for_function("'LikenessTrain' in (window.LiteGraph?.registered_node_types ?? "
                               "{}) && window.app?.graph", timeout=120000)
        yield page
        context.close()
