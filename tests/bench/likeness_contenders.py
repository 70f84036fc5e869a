"""Who learns a person in the likeness bench: this pack, core's node, and diffusers with peft.

Each gives its curve: processor seconds of its whole run (one thread) and what both recognisers
say of sixteen headshots after so many steps. Drawing and judging are not counted, nor is making
diffusers' network.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sd
import comfy.utils
import diffusers
import torch
from likeness.nodes.training.recipes.base import Recipe
from likeness.nodes.training.run.job import Job, Outcome
from likeness.nodes.training.run.session import run
from likeness.nodes.training.watch.divergence import Diverged
from likeness.nodes.training.watch.monitor import Look
from likeness_world import World, monitor
from references import make_reference

logger = logging.getLogger("likeness")
JUDGES = ("dlib", "mobilefacenet")
# The attention and feed-forward layers, which the pack's preset trains too, by diffusers' names.
_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


class Clock:
    """Processor seconds of this process, of what is counted alone.

    Attributes:
        spent: so far.
    """

    def __init__(self) -> None:
        self.spent, self._since = 0.0, time.process_time()

    def count(self) -> None:
        """Count what was done since the last call of this or of `forget`."""
        self.spent += time.process_time() - self._since
        self.forget()

    def forget(self) -> None:
        """Leave out what was done since."""
        self._since = time.process_time()


@dataclass(frozen=True)
class Point:
    """What a contender has reached after so many steps."""

    step: int
    seconds: float  # of training alone
    likeness: Mapping[str, float]  # by judge, to photos that never train
    both: float | None
    copy: float | None
    faces: int  # pictures in which a face could be compared


def point(step: int, seconds: float, seen: Look) -> Point:
    """Put a look and the time before it together."""
    return Point(step, round(seconds, 3), seen.judges, seen.likeness, seen.copy, seen.scored)


@dataclass(frozen=True, eq=False)
class Curve:
    """A contender's points in order, and what it made."""

    points: tuple[Point, ...]
    outcome: Outcome | None = None

    def best(self, judge: str) -> Point:
        """The point of the highest likeness by one judge."""
        return max(self.points, key=lambda one: one.likeness.get(judge, -1.0))

    def reaches(self, judge: str, likeness: float) -> Point | None:
        """The first point at which a judge sees so much likeness."""
        return next((one for one in self.points if one.likeness.get(judge, -1.0) >= likeness),
                    None)


def ours(world: World, recipe: Recipe, every: int, seed: int = 0, name: str = "ours",
         **fields: Any) -> Curve:
    """Train with this pack's own run, until it ends or would do harm.

    Args:
        fields: of the job, beside those that are every run's.
    """
    clock, points = Clock(), []

    def on_look(seen: Look) -> None:
        points.append(point(seen.step, clock.spent, seen))
        clock.forget()

    folder = world.folder / "runs" / world.person.name.replace(" ", "_")
    job = Job(world.base.model, world.training_set, world.subject, recipe, seed, name,
              folder / "loras", folder / "work", clip=world.base.clip, vae=world.base.vae,
              monitor=monitor(every), **fields)
    try:
        outcome = run(job, lambda result: clock.count(), on_look)
    except Diverged as err:
        logger.info("%s, %s: %s", world.person.name, name, err)
        outcome = None
    return Curve(tuple(points), outcome)


def core(world: World, lengths: Sequence[int], rank: int, rate: float, batch: int = 1) -> Curve:
    """Train with core's node, anew for each number of steps, which it does not tell in between."""
    points = []
    for steps in lengths:
        clock = Clock()
        lora = _core_lora(world, steps, rank, rate, batch)
        clock.count()
        patched, _ = comfy.sd.load_lora_for_models(world.base.model, None, lora, 1.0, 0.0)
        points.append(point(steps, clock.spent, world.look(patched, steps)))
    return Curve(tuple(points))


def _core_lora(world: World, steps: int, rank: int, rate: float, batch: int) -> Any:
    from comfy.weight_adapter import adapter_maps
    from comfy_extras.nodes_train import TrainLoraNode

    model = world.base.fresh_model()
    given = {"model": model, "batch_size": batch, "grad_accumulation_steps": 1, "steps": steps,
             "learning_rate": rate, "rank": rank, "optimizer": "AdamW", "loss_function": "MSE",
             "seed": 1, "training_dtype": "fp32", "lora_dtype": "fp32",
             "algorithm": next(iter(adapter_maps)), "gradient_checkpointing": False,
             "existing_lora": "[None]"}
    asked = {asked.id: asked.default for asked in TrainLoraNode.define_schema().inputs
             if getattr(asked, "default", None) is not None}
    values = {name: value for name, value in {**asked, **given}.items()
              if name not in ("latents", "positive")}
    positive = [[row[None], {}] for row in world.texts]
    with torch.inference_mode():
        made = TrainLoraNode.execute(
            latents=[{"samples": row[None]} for row in world.latents], positive=[positive],
            **{name: [value] for name, value in values.items()})
    # The LoRA is the one output that is a dict of tensors; hosts differ in its place.
    return next(value for value in made.args if isinstance(value, dict))


class PeftLoop:
    """A plain loop over diffusers' U-Net with peft's LoRA, as diffusers' scripts write it."""

    def __init__(self, world: World, rank: int, rate: float, batch: int) -> None:
        from peft import LoraConfig

        self.world, self.batch = world, batch
        # The base's own modules may hold the patches of what was drawn last.
        host = world.base.fresh_model().model.diffusion_model
        config = dict(world.base.model.model.model_config.unet_config)
        self.reference = make_reference("sd15", config, host.state_dict(), _twin(config))
        self.network = self.reference.network.requires_grad_(False)
        self.before = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.add_adapter(LoraConfig(r=rank, lora_alpha=rank,
                                            target_modules=list(_TARGETS)))
        self.network.train()
        learned = [value for value in self.network.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=rate)
        self.learned = learned
        self.schedule = diffusers.DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            prediction_type="v_prediction")
        self.generator = torch.Generator().manual_seed(1)

    def train(self, steps: int) -> None:
        """Make some steps."""
        latents, texts = self.world.latents, self.world.texts
        scale = self.world.base.model.model.latent_format.scale_factor
        for _ in range(steps):
            rows = torch.randint(len(latents), (self.batch,), generator=self.generator)
            clean = latents[rows] * scale
            noise = torch.randn(clean.shape, generator=self.generator)
            times = torch.randint(1000, (self.batch,), generator=self.generator)
            noisy = self.schedule.add_noise(clean, noise, times)
            target = self.schedule.get_velocity(clean, noise, times)
            loss = torch.nn.functional.mse_loss(
                self.network(noisy, times, texts[rows]).sample, target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def model(self) -> Any:
        """The host's MODEL with what was learned as patches of its weights."""
        patches = {}
        for name, layer in self.network.named_modules():
            if not hasattr(layer, "lora_A") or not layer.lora_A:
                continue
            key, part, swap = self.reference.places[f"{name}.weight"]
            delta = layer.get_delta_weight("default").detach()
            assert part is None, f"{key} is a part of a weight"
            patches[f"diffusion_model.{key}"] = ("diff", (swap(delta),))
        patched = self.world.base.model.clone()
        shapes = {key: value.shape for key, value in
                  self.world.base.model.model.state_dict().items() if key in patches}
        patched.add_patches({key: (kind, (value[0].reshape(shapes[key]),))
                             for key, (kind, value) in patches.items()}, 1.0)
        return patched


def peft(world: World, lengths: Sequence[int], rank: int, rate: float, batch: int = 1) -> Curve:
    """Train the plain loop and look where the others are looked at."""
    loop, points, done = PeftLoop(world, rank, rate, batch), [], 0
    clock = Clock()
    for steps in lengths:
        clock.forget()
        loop.train(steps - done)
        clock.count()
        done = steps
        points.append(point(steps, clock.spent, world.look(loop.model(), steps)))
    return Curve(tuple(points))


def _twin(config: Mapping[str, Any]) -> torch.nn.Module:
    widths = tuple(config["model_channels"] * times for times in config["channel_mult"])
    return diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=config["in_channels"], out_channels=config["out_channels"],
        block_out_channels=widths, layers_per_block=1, cross_attention_dim=config["context_dim"],
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        attention_head_dim=[width // 32 for width in widths])

