"""Who trains in the bench: this pack, core's node, diffusers with peft, and the floor.

A contender is set up once and then makes one step at a time, so that all can take turns; each step
is timed in CPU seconds of the one thread that computes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import comfy.ldm.modules.attention
import comfy.utils
import torch
import training_models
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import collate, main_captions
from likeness.nodes.training.steps.loop import Trainer
from training_networks import Networks

_NEVER = 100_000  # steps: more than any contender makes
_PHOTOS = 4


@dataclass(frozen=True)
class Setting:
    """What all contenders of a comparison share."""

    side: int  # of latents
    batch: int
    rank: int
    checkpointing: bool = True


class Ours:
    """This pack's training loop."""

    def __init__(self, networks: Networks, setting: Setting, folder: Path, **fields: Any) -> None:
        self.trainer = _trainer(networks, setting, folder, **fields)
        self._steps = self.trainer.run()

    def step(self) -> float:
        started = time.thread_time()
        next(self._steps)
        return time.thread_time() - started

    def close(self) -> None:
        self._steps.close()


class Floor:
    """The frozen network forward, and backward to its input: what no training can do without."""

    def __init__(self, networks: Networks, setting: Setting, folder: Path) -> None:
        self.trainer = _trainer(networks, setting, folder)
        samples = self.trainer.samples[:setting.batch]
        self._batch = collate(samples, main_captions(samples), self.trainer.device)
        self._sigmas = self.trainer.base.model_sampling.sigmas[500].repeat(setting.batch)
        self._attached = self.trainer.attached(adapted=False)
        self._attached.__enter__()

    def step(self) -> float:
        started = time.thread_time()
        noisy = self._batch.latents.clone().requires_grad_()
        estimate = self.trainer.predict(noisy, self._sigmas, self._batch.conds)
        torch.nn.functional.mse_loss(estimate, self._batch.latents).backward()
        return time.thread_time() - started

    def close(self) -> None:
        self._attached.__exit__(None, None, None)


class Core:
    """Core's `TrainLoraNode`, which runs in a thread of its own and waits after each step.

    Args:
        options: see `core_node`.
    """

    def __init__(self, networks: Networks, setting: Setting, **options: Any) -> None:
        self._execute = core_node(networks, setting, **options)
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._stopped, self._error, self._seconds = False, None, 0.0
        self._thread: threading.Thread | None = None

    def step(self) -> float:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._seconds

    def close(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._stopped = True
            self._go.release()
            self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(1)
        self._go.acquire()
        self._started = time.thread_time()
        try:
            self._execute(_NEVER, self._pause)
        except _Stopped:
            return
        except Exception as err:  # handed to whoever asked for the step
            self._error = err
        self._done.release()

    def _pause(self) -> None:
        self._seconds = time.thread_time() - self._started
        self._done.release()
        self._go.acquire()
        if self._stopped:
            raise _Stopped
        self._started = time.thread_time()


class _Stopped(Exception):
    """Ends a node that would go on."""


class Peft:
    """A plain loop over a diffusers network with peft's adapters, as diffusers' scripts write it.

    The preset's layers, no checkpointing. Adapters are float32; a bfloat16 network runs under
    autocast.
    """

    def __init__(self, networks: Networks, setting: Setting) -> None:
        from peft import LoraConfig

        self._reference, wiring = networks.reference(), networks.wiring
        self._flow, self._dtype = wiring.reference == "flux", networks.dtype
        network = self._reference.network.requires_grad_(False)
        network.add_adapter(LoraConfig(r=setting.rank, lora_alpha=setting.rank,
                                       target_modules=list(wiring.targets)))
        network.train()
        self._learned = [value for value in network.parameters() if value.requires_grad]
        for value in self._learned:
            value.data = value.data.float()
        self._optimizer = torch.optim.AdamW(self._learned, lr=1e-4)
        self._latents, conds = networks.inputs(setting.batch, setting.side)
        self._conds = {name: value.to(self._dtype) for name, value in conds.items()}
        self._schedule = _ddpm()

    def step(self) -> float:
        started = time.thread_time()
        half = self._dtype != torch.float32
        with torch.autocast("cpu", self._dtype) if half else nullcontext():
            noise = torch.randn_like(self._latents)
            noisy, times, target = self._corrupt(noise)
            predicted = self._reference.predict(noisy.to(self._dtype), times, self._conds)
            loss = torch.nn.functional.mse_loss(predicted.float(), target.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._learned, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return time.thread_time() - started

    def close(self) -> None:
        self._optimizer.zero_grad()

    @property
    def weights(self) -> list[torch.Tensor]:
        """What the network holds."""
        return list(self._reference.network.state_dict().values())

    def _corrupt(self, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = len(noise)
        if self._flow:
            levels = torch.sigmoid(torch.randn(rows))
            each = levels.view(-1, 1, 1, 1)
            return ((1 - each) * self._latents + each * noise, levels.to(self._dtype),
                    noise - self._latents)
        times = torch.randint(0, 1000, (rows,))
        return self._schedule.add_noise(self._latents, noise, times), times, noise


def _ddpm() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def _trainer(networks: Networks, setting: Setting, folder: Path, **fields: Any) -> Trainer:
    wiring = networks.wiring
    training_set = training_models.make_training_set(
        folder, wiring.name, ((setting.side,) * 2,) * _PHOTOS, tokens=wiring.text[0])
    recipe = LoRARecipe(steps=_NEVER, rank=setting.rank, alpha=float(setting.rank),
                        batch_size=setting.batch, gradient_checkpointing=setting.checkpointing,
                        **fields)
    return Trainer(networks.model(), training_set, recipe, seed=1)


def core_node(networks: Networks, setting: Setting, *, adapters: str = "",
              own_attention: bool = False) -> Callable[[int, Callable[[], None]], None]:
    """Core's node as a function of a number of steps and of what to call after each.

    Everything but the named settings is at the node's default: AdamW, MSE, every layer, norm and
    bias.

    Args:
        adapters: the node's `lora_dtype`; without it that of the training, as by default.
        own_attention: what the host would take on this machine instead of torch's attention.
    """
    from comfy.weight_adapter import adapter_maps
    from comfy_extras.nodes_train import TrainLoraNode

    model = networks.model()
    # Newer hosts' node loads the model once more by what its loader left.
    model.cached_patcher_init = (lambda disable_dynamic=False: networks.model(), ())
    if not own_attention:
        model.model_options["transformer_options"]["optimized_attention_override"] = (
            _torch_attention)
    latents, conds = networks.inputs(_PHOTOS, setting.side)
    options = [{"pooled_output": conds["y"][row: row + 1]} if "y" in conds else {}
               for row in range(_PHOTOS)]
    kind = {torch.float32: "fp32", torch.bfloat16: "bf16"}[networks.dtype]
    inputs = {"model": model, "batch_size": setting.batch, "grad_accumulation_steps": 1,
              "learning_rate": 1e-4, "rank": setting.rank, "optimizer": "AdamW",
              "loss_function": "MSE", "seed": 1, "training_dtype": kind,
              "lora_dtype": adapters or kind,
              "algorithm": next(iter(adapter_maps)),
              "gradient_checkpointing": setting.checkpointing, "existing_lora": "[None]"}
    # Newer hosts ask for more; what they show as a default is what a user of the node gets.
    asked = {asked.id: asked.default for asked in TrainLoraNode.define_schema().inputs
             if hasattr(asked, "default")}
    given = {"steps", "latents", "positive"}
    inputs = {**{name: value for name, value in asked.items()
                 if value is not None and name not in given}, **inputs}
    # The node takes lists, and fails on a single latent tensor.
    lists = {"latents": [{"samples": row[None]} for row in latents],
             "positive": [[[conds["c_crossattn"][row: row + 1], options[row]]
                           for row in range(_PHOTOS)]]}

    def execute(steps: int, after_step: Callable[[], None]) -> None:
        _AFTER_STEP[threading.get_ident()] = after_step
        comfy.utils.set_progress_bar_global_hook(_stepped)
        for name in _THROTTLES:
            if hasattr(comfy.utils, name):
                setattr(comfy.utils, name, 0)
        with redirect_stderr(StringIO()), torch.inference_mode():
            TrainLoraNode.execute(**lists, steps=[steps],
                                  **{name: [value] for name, value in inputs.items()})

    return execute


def _torch_attention(_chosen: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
    """Torch's fused attention, which diffusers takes too."""
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


_AFTER_STEP: dict[int, Callable[[], None]] = {}  # by thread
# Newer hosts report no step that is too small a share of all, and of `_NEVER` each is.
_THROTTLES = ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT")


def _stepped(*_: Any, **__: Any) -> None:
    """Core's node moves its progress bar once a step."""
    after_step = _AFTER_STEP.get(threading.get_ident())
    if after_step is not None:
        after_step()
