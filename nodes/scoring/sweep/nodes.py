"""The nodes that follow likeness and flexibility over strengths of a LoRA, or over models."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import comfy.samplers
import numpy as np
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image

from ... import runtime
from ...errors import LikenessError
from ...faces.recognise import backends
from ...incoming import require_pictures
from ...media.images import to_image, to_uint8
from ...schema import schema
from ...sockets import Subject
from ...tensors import fingerprint, model_key, text_fingerprint
from ..score.prompt import Clip, prompt_fit
from ..score.report import next_number, write_json, write_png
from ..score.score import yardstick
from .chart import draw_chart, draw_grid
from .figures import Judge, conclude, measure_cells, report
from .graph import CELL, RESULT, Sampling, Source, Sweep, expand
from .sweep import (
    SUBJECTS,
    Column,
    Grid,
    Store,
    filled,
    folder_key,
    make_grid,
    parse_prompts,
    parse_strengths,
)
from .widgets import NONE, lora_file, sweep_inputs, word_folders
from .words import folders_of, stamps, words_digest

SweepType = io.Custom("LIKENESS_SWEEP")
_SEEN = 384  # pixels; the longer side of pictures that are held for grid, CLIP and comparison


def _outputs() -> list[io.Output]:
    return [
        io.Image.Output(display_name="grid", tooltip="Every picture: columns across, prompts and "
                                                     "seeds down, the score under each."),
        io.Image.Output(display_name="chart", tooltip="Likeness with the band of the subject's own "
                                                      "photos, and flexibility, over the columns."),
        io.Float.Output(display_name="best_strength",
                        tooltip="The recommended strength, or the number of the best of `models` "
                                "from 0. When the curves name none, what is connected here does "
                                "not run and is told why."),
        io.String.Output(display_name="json", tooltip="Curves, every picture's file, score and "
                                                      "status, the formulas, the advice."),
    ]


class LikenessSweep(io.ComfyNode):
    """Sweep a LoRA's strength over prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessSweep", feature="scoring", display_name="Likeness Sweep",
            is_output_node=True, enable_expand=True, is_input_list=True,
            description="Draws every prompt at every strength of a LoRA (or with every connected "
                        "model), scores the pictures, and shows how likeness rises and flexibility "
                        "falls, with the strength at the knee. Samples with the host's own nodes; "
                        "each picture is kept on disk, so a cancelled sweep goes on and a wider "
                        "one makes only what is new.",
            inputs=sweep_inputs(), outputs=_outputs())

    @classmethod
    def validate_inputs(cls, strengths: Any = None, prompts: Any = None) -> bool | str:
        try:
            for text, parse in ((_one(strengths), parse_strengths), (_one(prompts), parse_prompts)):
                if isinstance(text, str):  # None: it is connected
                    parse(text)
        except LikenessError as err:
            return str(err)
        return True

    @classmethod
    def fingerprint_inputs(cls, lora: Any = None, lora_path: Any = None, **_: Any) -> str:
        try:
            file = lora_file(_one(lora) or NONE, _one(lora_path) or "")
        except LikenessError as err:
            return str(err)
        own = [] if file is None else [str(file), file.stat().st_size, file.stat().st_mtime_ns]
        return json.dumps([own, stamps(word_folders())])

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        several = [model for model in inputs.pop("models", None) or () if model is not None]
        given = {name: _one(value) for name, value in inputs.items()}
        sampling = _sampling(given)
        source, columns, keys = _source(given, several)
        subject: Subject = given["subject"]
        words = partial(words_digest, folders=folders_of(source.clip) | set(word_folders()))
        folder = _folder(subject, folder_key(
            keys, text_fingerprint(source.clip),
            fingerprint(source.vae.first_stage_model.state_dict()), sampling.plain,
            *filter(None, [words(sampling.negative)])))
        trigger = (given.get("trigger") or "").strip() or subject.trigger
        grid = make_grid(columns, parse_prompts(given["prompts"]), trigger, subject, given["seed"],
                         given["seeds"], given["max_cells"], not several, words)
        store = Store(folder)
        missing = tuple(number for number, cell in enumerate(grid.cells) if not store.has(cell))
        towers = None
        if given.get("clip_vision") is not None:
            towers = Clip(given["clip_vision"], given.get("prompt_clip") or source.clip)
            _check(towers, grid, subject)
        judge = Judge(yardstick(subject, given["backend"], given.get("bank")))
        graph, links = expand(Sweep(grid, store, judge, missing, towers), source, sampling)
        return io.NodeOutput(*links, expand=graph)


class LikenessSweepCell(io.ComfyNode):
    """Keep and score one picture of a sweep."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            CELL, feature="scoring/inside a sweep", display_name="Likeness Sweep Cell",
            is_output_node=True, is_dev_only=True, not_idempotent=True,
            description="Likeness Sweep puts this node behind every picture that it samples; it "
                        "keeps the picture on disk and scores it. It is of no use by itself.",
            inputs=[
                io.Image.Input("images", tooltip="The picture; the first one counts."),
                SweepType.Input("sweep", tooltip="The sweep it belongs to."),
                io.Int.Input("cell", default=0, min=0, max=1000000,
                             tooltip="The number of the picture in the sweep."),
                SweepType.Input("before", optional=True,
                                tooltip="The cell that has to be kept first."),
            ],
            outputs=[SweepType.Output(display_name="sweep",
                                      tooltip="The sweep, for the next cell.")])

    @classmethod
    def execute(cls, images, sweep: Sweep, cell: int, before: Any = None) -> io.NodeOutput:
        pixels, place = to_uint8(require_pictures(images, "images")[0]), sweep.grid.cells[cell]
        sweep.store.write(place, pixels)
        sweep.store.write_figures(place, sweep.judge.figures(pixels))
        return io.NodeOutput(sweep, ui={"images": [_shown(sweep.store.picture(place))]})


class LikenessSweepResult(io.ComfyNode):
    """Gather a sweep."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            RESULT, feature="scoring/inside a sweep", display_name="Likeness Sweep Result",
            is_output_node=True, is_dev_only=True, not_idempotent=True,
            description="Likeness Sweep puts this node behind its last picture; it reads all of "
                        "them, draws grid and chart and chooses a strength. It is of no use by "
                        "itself.",
            inputs=[
                SweepType.Input("sweep", tooltip="The sweep to gather."),
                SweepType.Input("before", optional=True,
                                tooltip="The cell that is kept last."),
            ],
            outputs=_outputs())

    @classmethod
    def execute(cls, sweep: Sweep, before: Any = None) -> io.NodeOutput:
        grid, store = sweep.grid, sweep.store
        figures = measure_cells(grid, store, sweep.judge,
                                runtime.progress_callback(len(grid.cells)))
        pictures = [_small(store.read(cell)) for cell in grid.cells]
        result = conclude(grid, figures, pictures, sweep.judge.measure.calibration,
                          _cosines(sweep, pictures))
        told = report(result, store, sweep.judge, len(sweep.missing))
        drawn = draw_grid(result, pictures), draw_chart(result)
        number = next_number(store.folder, "sweep")
        files = [store.folder / f"sweep_{number:05}{kind}" for kind in (".png", "_chart.png")]
        for file, pixels in zip(files, drawn, strict=True):
            write_png(file, Image.fromarray(pixels))
        told |= {"grid": str(files[0]), "chart": str(files[1]),
                 "report": str(files[0].with_suffix(".json"))}
        write_json(files[0].with_suffix(".json"), told)
        best = told["best"] if told["best"] is not None else ExecutionBlocker(told["advice"])
        text = json.dumps(told, indent=1)
        return io.NodeOutput(*(to_image(pixels) for pixels in drawn), best, text,
                             ui={"images": [_shown(file) for file in files],
                                 **ui.PreviewText(text).as_dict()})


def _one(value: Any) -> Any:
    """The first of an input that the host gives as a list."""
    return value[0] if isinstance(value, (list, tuple)) and value else value


def _sampling(given: dict[str, Any]) -> Sampling:
    for name, known in (("sampler", comfy.samplers.KSampler.SAMPLERS),
                        ("scheduler", comfy.samplers.KSampler.SCHEDULERS)):
        if given[name] not in known:
            raise LikenessError(f"`{name}` must be one that this ComfyUI has; got "
                                f"`{given[name]}`.")
    if given["clip"] is None or given["vae"] is None:
        raise LikenessError("The checkpoint has no text encoder or no VAE; connect a loader for "
                            "each to `clip` and `vae`.")
    backends.require(given["backend"])
    return Sampling(given["steps"], given["cfg"], given["sampler"], given["scheduler"],
                    given["guidance"], given["width"], given["height"], given["negative"].strip())


def _source(given: dict[str, Any], several: list[Any]) -> tuple[Source, list[Column], list[Any]]:
    """What the columns are made from, the columns, and what their folder is told by.

    Raises:
        LikenessError: nothing to sweep over, or two things at once.
    """
    clip, vae = given["clip"], given["vae"]
    lora, path = given["lora"], (given.get("lora_path") or "").strip()
    file, loose = lora_file(lora, path), given.get("lora_model")
    wanted = {"`models`": bool(several), "`lora` or `lora_path`": file is not None,
              "`lora_model`": bool(loose)}
    if sum(wanted.values()) != 1:
        both = " and ".join(name for name, there in wanted.items() if there)
        raise LikenessError(f"A sweep goes over one thing, but {both} are given; leave one." if both
                            else "There is nothing to sweep over: choose a `lora`, or connect "
                                 "`lora_path`, `lora_model` or `models`.")
    if several:
        keys = [model_key(model) for model in several]
        labels = _labels(given.get("labels") or "", len(several))
        columns = [Column(label, float(place), f"m{key[:12]}")
                   for place, (label, key) in enumerate(zip(labels, keys, strict=True))]
        return Source(several, clip, vae), columns, ["models"]
    columns = [Column(f"{strength:g}", strength, f"s{strength:g}")
               for strength in parse_strengths(given["strengths"])]
    model = given["model"]
    if file is None:
        return (Source([model], clip, vae, lora_model=loose), columns,
                [model_key(model), fingerprint(loose)])
    own = hashlib.sha256(file.read_bytes()).hexdigest()
    return (Source([model], clip, vae, {"lora": lora, "lora_path": path}), columns,
            [model_key(model), own])


def _labels(text: str, count: int) -> list[str]:
    labels = [line.strip() for line in text.splitlines() if line.strip()]
    if not labels:
        return [f"model {number}" for number in range(1, count + 1)]
    if len(labels) != count:
        raise LikenessError(f"`labels` has {len(labels)} lines for {count} models; give each model "
                            "one line, or leave it empty.")
    return labels


def _folder(subject: Subject, key: str) -> Path:
    return runtime.contained(runtime.output_directory() / "likeness",
                             subject.folder_name) / "sweeps" / key


def _shown(file: Path) -> dict[str, str]:
    """A file below the output folder, as the history lists it."""
    place = file.parent.relative_to(runtime.output_directory())
    return {"filename": file.name, "subfolder": place.as_posix(), "type": "output"}


def _small(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SEEN, _SEEN), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(picture))


def _said(template: str, subject: Subject) -> str:
    """A prompt as CLIP can know it."""
    for mark in SUBJECTS:
        template = template.replace(mark, subject.class_noun)
    return filled(template, subject.class_noun, subject)


def _check(towers: Clip, grid: Grid, subject: Subject) -> None:
    """Refuse towers that cannot judge the pictures before any is made.

    Raises:
        LikenessError: they do not belong together, or a prompt says nothing to them.
    """
    if any(photo.file.is_file() for photo in subject.photos):  # they are judged by a real face
        for template in grid.templates:
            prompt_fit(torch.zeros(1, 64, 64, 3), towers, _said(template, subject), subject,
                       runtime.throw_if_cancelled)


def _cosines(sweep: Sweep, pictures: list[np.ndarray]) -> np.ndarray | None:
    """How well each picture shows its prompt; None without a CLIP to ask."""
    if sweep.towers is None:
        return None
    grid, subject = sweep.grid, sweep.judge.measure.subject
    found = np.empty(len(pictures))
    for row, template in enumerate(grid.templates):
        numbers = [index for index, cell in enumerate(grid.cells) if cell.row == row]
        batch = to_image(np.stack([pictures[number] for number in numbers]))
        found[numbers] = prompt_fit(batch, sweep.towers, _said(template, subject), subject,
                                    runtime.throw_if_cancelled).cosines
    return found


NODES: list[type[io.ComfyNode]] = [LikenessSweep, LikenessSweepCell, LikenessSweepResult]
