"""A sweep's missing cells as a graph of the host's own nodes, which the executor runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.graph_utils import GraphBuilder

from .figures import Judge
from .sweep import Cell, Grid, Store

CELL, RESULT = "LikenessSweepCell", "LikenessSweepResult"  # ids of the nodes that end the graph


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """What the nodes inside a sweep know. The content of a LIKENESS_SWEEP socket."""

    grid: Grid
    store: Store
    judge: Judge
    missing: tuple[int, ...]  # numbers of the cells that this call samples
    towers: Any = None  # scoring.prompt.Clip; None: no CLIP to ask about the prompt


@dataclass(frozen=True)
class Sampling:
    """How a cell is sampled, as in KSampler."""

    steps: int
    cfg: float
    sampler: str
    scheduler: str
    guidance: float
    width: int
    height: int
    negative: str

    @property
    def plain(self) -> list[Any]:
        """For the key of what it makes."""
        return [self.steps, self.cfg, self.sampler, self.scheduler, self.guidance, self.width,
                self.height, self.negative]


@dataclass(frozen=True, eq=False)
class Source:
    """What the columns are made from."""

    models: Sequence[Any]  # one MODEL, or one per column
    clip: Any
    vae: Any
    lora: Mapping[str, Any] = field(default_factory=dict)  # inputs of LikenessApplyTrained
    lora_model: Any = None  # tensors of a LORA_MODEL


def expand(sweep: Sweep, source: Source, sampling: Sampling) -> tuple[dict[str, Any], list[Any]]:
    """The graph of a sweep, and links to the outputs of its last node.

    Nothing is in it for cells that lie on disk; a column without missing cells has no nodes. The
    cells stand one behind the other, so that each is stored before the next is decoded.
    """
    graph = GraphBuilder()
    latent = None
    ends: dict[int, tuple[Any, Any]] = {}
    texts: dict[tuple[int, str], Any] = {}
    before = None

    def text(column: int, prompt: str) -> Any:
        key = (_own_clip(column, source), prompt)
        if key not in texts:
            encoded = graph.node("CLIPTextEncode", clip=ends[column][1], text=prompt)
            texts[key] = graph.node("FluxGuidance", conditioning=encoded.out(0),
                                    guidance=sampling.guidance).out(0)
        return texts[key]

    for number in sweep.missing:
        cell = sweep.grid.cells[number]
        if latent is None:
            latent = graph.node("EmptyLatentImage", width=sampling.width, height=sampling.height,
                                batch_size=1)
        if cell.column not in ends:
            ends[cell.column] = _column(graph, sweep.grid, cell.column, source)
        sampled = _sample(graph, cell, number, ends[cell.column][0], sampling, latent,
                          text(cell.column, sweep.grid.prompts[cell.row]),
                          text(cell.column, sampling.negative))
        decoded = graph.node("VAEDecode", samples=sampled.out(0), vae=source.vae)
        end = graph.node(CELL, id=f"cell_{number}", images=decoded.out(0), sweep=sweep, cell=number)
        end.set_input("before", before)
        before = end.out(0)
    result = graph.node(RESULT, id="result", sweep=sweep)
    result.set_input("before", before)
    return graph.finalize(), [result.out(place) for place in range(4)]


def _own_clip(column: int, source: Source) -> int:
    """Columns whose prompts are encoded alike share a number."""
    return column if source.lora else 0


def _column(graph: GraphBuilder, grid: Grid, place: int, source: Source) -> tuple[Any, Any]:
    """A column's MODEL and CLIP, as links or as they are."""
    strength = grid.columns[place].strength
    if not grid.strengths:
        return source.models[place], source.clip
    if source.lora_model is not None:
        loaded = graph.node("LoraModelLoader", model=source.models[0], lora=source.lora_model,
                            strength_model=strength)
        return loaded.out(0), source.clip
    applied = graph.node("LikenessApplyTrained", model=source.models[0], clip=source.clip,
                         strength_model=strength, strength_clip=strength, **source.lora)
    return applied.out(0), applied.out(1)


def _sample(graph: GraphBuilder, cell: Cell, number: int, model: Any, sampling: Sampling,
            latent: Any, positive: Any, negative: Any) -> Any:
    return graph.node("KSampler", id=f"sample_{number}", model=model, positive=positive,
                      negative=negative, latent_image=latent.out(0), seed=cell.seed,
                      steps=sampling.steps, cfg=sampling.cfg, sampler_name=sampling.sampler,
                      scheduler=sampling.scheduler, denoise=1.0)
