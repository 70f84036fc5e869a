"""The training loop: a generator of step results on a host MODEL that it leaves as it found it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import comfy.model_management
import torch

from .. import runtime
from ..errors import LikenessError
from ..sockets import TrainingSet
from . import objectives
from .adapters.attach import attach, set_compute_type
from .adapters.group import Adapters
from .data import Batch, Sample, batch_order, collate, group_samples, load_samples, seeded
from .frozen import pytorch_attention
from .recipes.adapters import LoRARecipe
from .recipes.fields import Precision
from .scope import Scope
from .state import RunState
from .timesteps import draw_sigmas, is_flow

# Stored activations against those of one sampling step, with and without checkpointing: one block
# and the inputs of the others, or every block.
_ACTIVATIONS = {True: 3.0, False: 12.0}
_OPTIMIZERS = {"adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step did."""

    step: int  # finished steps, from 1
    loss: float
    learning_rate: float
    gradient_norm: float  # before clipping
    seconds: float
    photos: tuple[str, ...]
    sigmas: tuple[float, ...]


def check_trainable(model: Any) -> None:
    """Refuse a MODEL that carries what training would have to ignore.

    Raises:
        LikenessError: attention patches, wrappers, hooks or injections are on the model.
    """
    options = model.model_options.get("transformer_options", {})
    found = {"patches": any(options.get("patches", {}).values()),
             "patches_replace": any(options.get("patches_replace", {}).values()),
             "a wrapper": "model_function_wrapper" in model.model_options
                          or any(model.wrappers.values()),
             "hooks": model.hook_patches, "injections": model.injections}
    carried = [name for name, present in found.items() if present]
    if carried:
        raise LikenessError(
            f"The MODEL carries {' and '.join(carried)} of other nodes, which training would not "
            "see; connect the model from before those nodes.")


def compute_type(base: Any, precision: Precision, device: torch.device) -> torch.dtype:
    """The number format a host model trains in; float16 gradients would overflow, so never that."""
    if precision is not Precision.AUTO:
        return getattr(torch, precision.value)
    own = base.manual_cast_dtype or base.get_dtype()
    if own in (torch.float32, torch.bfloat16):
        return own
    half = comfy.model_management.should_use_bf16(device)
    return torch.bfloat16 if half else torch.float32


class Trainer:
    """One run: adapters, optimiser and finished steps; draws everything random from the seed.

    Raises:
        LikenessError: the model, the training set and the recipe do not fit together.
    """

    def __init__(self, model: Any, training_set: TrainingSet, recipe: LoRARecipe,
                 seed: int) -> None:
        check_trainable(model)
        self.recipe, self.seed, self.step = recipe, seed, 0
        self.patcher = runtime.training_clone(model)
        self.base = self.patcher.model
        self.device = self.patcher.load_device
        self.losses: list[float] = []
        self.whole = True  # false while an optimiser step is under way
        with torch.inference_mode(False), torch.no_grad():
            self.samples = load_samples(self.base, training_set, recipe, self.device)
        self.groups = group_samples(self.samples)
        self._load()
        self.dtype = compute_type(self.base, recipe.precision, self.device)
        with torch.inference_mode(False):
            self.adapters = Adapters(self.base.diffusion_model, recipe, seeded(seed, "adapters"),
                                 self.device)
            self.optimizer = _OPTIMIZERS[recipe.optimizer.value](
                self.adapters.parameters(), lr=recipe.learning_rate,
                weight_decay=recipe.weight_decay)

    def run(self, until: int | None = None) -> Iterator[StepResult]:
        """Train up to a number of finished steps; the MODEL is changed only while this runs.

        Close the generator (`contextlib.closing`) when leaving it early.

        Raises:
            LikenessError: loss or gradient is no longer a number, or memory ran out.
        """
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        order = batch_order(self.groups, self.recipe.batch_size, self.seed)
        with self.attached():
            for places in islice(order, self.step, last):
                try:
                    result = self._step(places)
                except runtime.OutOfMemory as err:
                    raise LikenessError(self._out_of_memory()) from err
                except RuntimeError as err:
                    if self.step == 0 and "shapes cannot be multiplied" in str(err):
                        raise LikenessError("The captions' encoding does not fit this model; "
                                            "run Prepare Training with its own CLIP.") from err
                    raise
                yield result

    def state(self, key: str) -> RunState:
        """The run as it stands after the last finished step."""
        return RunState(key, self.step, self.adapters.tensors(), self.optimizer.state_dict(),
                        tuple(self.losses))

    def restore(self, state: RunState) -> None:
        """Take a run up where it stopped."""
        with torch.inference_mode(False):
            self.adapters.load_tensors(state.tensors)
            self.optimizer.load_state_dict(dict(state.optimizer))
        self.step, self.losses = state.step, list(state.losses)

    def probe(self, adapted: bool) -> torch.Tensor:
        """The model's prediction error on a fixed input, with or without the adapters."""
        with self.attached(adapted):
            return probe(self.patcher, self.samples[0])

    @contextmanager
    def attached(self, adapted: bool = True) -> Iterator[None]:
        """While this lasts the MODEL runs frozen, with or without the adapters."""
        self._load()
        with Scope() as scope:
            with torch.inference_mode(False):
                adapters = self.adapters if adapted else None
                attach(scope, self.base, self.base.diffusion_model, adapters,
                       self.recipe.gradient_checkpointing)
                set_compute_type(scope, self.base, self.dtype)
            # Newer hosts choose operations that have a backward pass when this is set.
            if hasattr(comfy.model_management, "in_training"):
                scope.set_attribute(comfy.model_management, "in_training", True)
            yield

    def loss(self, batch: Batch, sigmas: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The recipe's loss of a batch at given noise levels (B,) and noise (B, C, ...)."""
        sampling, recipe = self.base.model_sampling, self.recipe
        noisy = sampling.noise_scaling(sigmas, noise, batch.latents)
        estimate = denoise(self.base, noisy, sigmas, batch.conds, self.patcher.model_options)
        error = objectives.target_error(sampling, sigmas, estimate, batch.latents)
        if recipe.min_snr > 0 and not is_flow(sampling):
            error = error * objectives.min_snr_weight(sampling, sigmas, recipe.min_snr, error.ndim)
        weight = objectives.face_weight(batch.masks, recipe.background)
        return objectives.masked_mean(error, weight).mean()

    def _load(self) -> None:
        """Bring the weights to the compute device; others may have patched or evicted them."""
        runtime.load_models([self.patcher], self._memory_required())

    def _step(self, places: tuple[int, ...]) -> StepResult:
        started = time.perf_counter()
        # Not around the whole generator: a mode set there would leak into whoever consumes it.
        with torch.inference_mode(False), torch.enable_grad():
            generator = seeded(self.seed, "step", self.step)
            empty = bool(torch.rand((), generator=generator) < self.recipe.caption_dropout)
            batch = collate([self.samples[place] for place in places], empty, self.device)
            sigmas = draw_sigmas(self.base.model_sampling, self.recipe, len(places), generator)
            noise = torch.randn(batch.latents.shape, generator=generator)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(batch, sigmas.to(self.device), noise.to(self.device))
            self._check(loss, "loss", batch, sigmas)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.adapters.parameters(),
                                                  self.recipe.gradient_clip or float("inf"))
            self._check(norm, "gradient", batch, sigmas)
            rate = self.recipe.learning_rate_at(self.step)
            self._update(rate)
        self.losses.append(loss.item())
        return StepResult(self.step, self.losses[-1], rate, norm.item(),
                          time.perf_counter() - started, batch.photos, tuple(sigmas.tolist()))

    def _update(self, rate: float) -> None:
        self.whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.whole = True

    def _check(self, value: torch.Tensor, what: str, batch: Batch, sigmas: torch.Tensor) -> None:
        if torch.isfinite(value).all():
            return
        levels = ", ".join(f"{sigma:.3g}" for sigma in sigmas.tolist())
        raise LikenessError(
            f"The {what} of step {self.step + 1} is not a number (photo {', '.join(batch.photos)}; "
            f"noise level {levels}); what was learned up to step {self.step} is kept. Lower the "
            "learning rate or take that photo out.")

    def _memory_required(self) -> int:
        """Bytes to keep free for activations and adapters; the host places the weights by it."""
        shape = max((sample.latent.shape for sample in self.samples), key=lambda size: size.numel())
        step = self.base.memory_required([self.recipe.batch_size, *shape])
        return int(step * _ACTIVATIONS[self.recipe.gradient_checkpointing])

    def _out_of_memory(self) -> str:
        cheapest = ("lower `batch_size`" if self.recipe.batch_size > 1 else
                    "switch `gradient_checkpointing` on" if not self.recipe.gradient_checkpointing
                    else "prepare the photos at a lower resolution")
        return (f"Memory ran out at step {self.step + 1}; {cheapest}. What was learned up to step "
                f"{self.step} is kept.")


def denoise(base: Any, noisy: torch.Tensor, sigmas: torch.Tensor, conds: Mapping[str, Any],
            model_options: Mapping[str, Any]) -> torch.Tensor:
    """The model's x0 estimate for a batch, one row per sample, in one forward."""
    options = {**model_options.get("transformer_options", {}),
               "optimized_attention_override": pytorch_attention,
               "cond_or_uncond": [0], "sigmas": sigmas}
    return base.apply_model(noisy, sigmas, transformer_options=options, **conds)


def probe(model: Any, sample: Sample) -> torch.Tensor:
    """Prediction error of a loaded MODEL on one photo, with fixed noise at the middle level."""
    sampling, device = model.model.model_sampling, model.load_device
    with torch.no_grad():
        batch = collate([sample], empty_caption=False, device=device)
        sigmas = sampling.sigmas[len(sampling.sigmas) // 2].reshape(1).to(device, torch.float32)
        noise = torch.randn(batch.latents.shape, generator=seeded(0, "probe")).to(device)
        noisy = sampling.noise_scaling(sigmas, noise, batch.latents)
        estimate = denoise(model.model, noisy, sigmas, batch.conds, model.model_options)
        slope = objectives.prediction_slope(sampling, sigmas, noisy.ndim)
        return ((estimate - batch.latents) / slope).float().cpu()
