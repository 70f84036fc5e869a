"""Prompts that train on a tiny checkpoint and draw with what came out, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from safetensors.torch import load_file

from launcher.client.runs import Run
from launcher.client.websocket import ConnectionClosed, WebSocket
from launcher.makers.canvas import input_specs, is_widget

Link = Callable[..., list[Any]]
PHOTOS = ("01_portrait.jpg", "02_outdoors.jpg", "04_window_light.jpg")
ARCHITECTURES = ("sd15", "sdxl", "sd3", "flux")
# Small models and sizes for the workflow files; everything else is as users run them.
SMALL = {
    "photos.folder": "samples", "prepare.resolution": 128, "preset.steps": 4,
    "class_photos.count": 2, "class_photos.width": 128, "class_photos.height": 128,
    "class_photos.steps": 2, "monitor.every": 2, "monitor.pictures": 2, "monitor.steps": 2,
    "canvas.width": 128, "canvas.height": 160, "canvas.batch_size": 2, "sample.steps": 2,
}
FEW = {"steps": 3, "precision": "float32"}  # of every recipe here


@dataclass
class Training:
    """A prompt under construction: photos of one person prepared for one tiny checkpoint.

    Every prompt begins with the same nodes, so that the server prepares the photos once.
    """

    graph: Any  # the `Graph` of conftest.py
    info: Mapping[str, Any]  # the host's object_info
    architecture: str
    subject_name: str = "trained"
    drawn: dict[str, str] = field(default_factory=dict)  # what was drawn -> id of its node

    def __post_init__(self) -> None:
        self.checkpoint = self.add("CheckpointLoaderSimple",
                                   ckpt_name=f"tiny_{self.architecture}.safetensors")
        photos = self.add("LikenessLoadPhotos", folder="training")
        self.subject = self.add("LikenessSubject", held_out=1, name=self.subject_name,
                                photos=self.add("LikenessCuratePhotos", photos=photos)())
        self.photos = self.add("LikenessPrepareTraining", subject=self.subject,
                               vae=self.checkpoint(2), clip=self.checkpoint(1), resolution=128)

    def add(self, node_class: str, title: str | None = None, /, **inputs: Any) -> Link:
        """Add a node; widgets that are not named have the values that the canvas first shows."""
        widgets = {}
        for name, kind, options in input_specs(self.info[node_class]):
            if is_widget(kind, options):
                choices = kind if isinstance(kind, list) else options.get("options")
                widgets[name] = options.get("default", choices[0] if choices else "")
        return self.graph.add(node_class, title, **{**widgets, **inputs})

    def recipe(self, kind: str, **inputs: Any) -> Link:
        """A recipe node for three steps, `Likeness<kind>Recipe`."""
        return self.add(f"Likeness{kind}Recipe", **{**FEW, **inputs})

    def train(self, recipe: Link, **inputs: Any) -> Link:
        """Train, with CLIP and VAE connected; the node's title is Train."""
        return self.add("LikenessTrain", "Train", **{
            "model": self.checkpoint(0), "training_set": self.photos, "subject": self.subject,
            "recipe": recipe, "clip": self.checkpoint(1), "vae": self.checkpoint(2), **inputs})

    def draw(self, what: str, model: list[Any], clip: list[Any],
             text: list[Any] | str = "photo of ohwx person") -> None:
        """Sample with core's nodes and save the latent; `latent` finds it under `what`."""
        words = self.graph.add("CLIPTextEncode", clip=clip, text=text)
        size = self.graph.add("EmptySD3LatentImage" if self.architecture in ("sd3", "flux")
                              else "EmptyLatentImage", width=64, height=64, batch_size=1)
        sampled = self.graph.add("KSampler", model=model, positive=words, negative=words,
                                 latent_image=size, seed=1, steps=2, cfg=1.0,
                                 sampler_name="euler", scheduler="simple", denoise=1.0)
        self.drawn[what] = self.graph.add("SaveLatent", samples=sampled,
                                          filename_prefix=f"training/{what}").id

    def latent(self, host: Any, run: Run, what: str) -> torch.Tensor:
        """What `draw` has saved."""
        (file,) = run.outputs[self.drawn[what]]["latents"]
        return load_file(host.output / file["subfolder"] / file["filename"])["latent_tensor"]


def report(run: Run, node: Link) -> dict[str, Any]:
    """The JSON that a node shows."""
    return json.loads(run.text(node.id))


def files(told: Mapping[str, Any]) -> dict[str, Path]:
    """The files that Train reports, by kind."""
    return {kind: Path(path) for kind, path in told["files"].items()}


@contextmanager
def heard(host: Any, kind: str) -> Iterator[list[dict[str, Any]]]:
    """Collect the server's websocket events of a kind, as a panel in the browser hears them."""
    socket = WebSocket(f"ws://{host.client.url.partition('://')[2]}/ws?clientId=panel")
    events: list[dict[str, Any]] = []
    over = Event()

    def listen() -> None:
        while not over.is_set():
            try:
                message = socket.receive(0.2)
            except TimeoutError:
                continue
            except ConnectionClosed:
                return
            if isinstance(message, str) and json.loads(message)["type"] == kind:
                events.append(json.loads(message)["data"])

    thread = Thread(target=listen)
    thread.start()
    try:
        yield events
    finally:
        over.set()
        thread.join()
        socket.close()
