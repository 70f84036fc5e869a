"""The training loop: a generator of step results on a host MODEL that it leaves as it found it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch

from ... import runtime
from ...errors import LikenessError
from ...sockets import TrainingSet
from ..adapters.attach import attach, compute_type, set_compute_type
from ..adapters.group import LAYERS, Adapters
from ..frozen.beside import keep_running
from ..frozen.carried import check_trainable, training_options
from ..frozen.quantise import device_bytes, quantise_layers, set_objects
from ..frozen.scope import Scope
from ..objective import objectives
from ..objective.denoise import denoise, probe
from ..objective.losses import Objective
from ..objective.timesteps import draw_sigmas
from ..parametrisation import noise_level
from ..recipes.base import Recipe
from ..recipes.fields import BaseWeights
from ..samples.data import Batch, Sample, choose_captions, collate, load_samples, seeded
from ..samples.order import batch_order, group_samples, repeats
from .learner import Learner
from .plan import check_fits, free_bytes, plan_before
from .reach import Reach
from .state import RunState
from .step import NotANumber, StepResult


class Trainer:
    """One run: what learns, its optimiser and finished steps; every draw comes from the seed.

    Args:
        text: text encoders that learn (a `text.live.LiveText`), where the recipe has such.
        class_set: pictures of the class, for prior preservation.
        identity: the recogniser's term; asked where the recipe gives it a weight.

    Raises:
        LikenessError: the model, the training set and the recipe do not fit together, or what
            learns does not fit the compute device.
    """

    def __init__(self, model: Any, training_set: TrainingSet, recipe: Recipe, seed: int, *,
                 text: Any = None, class_set: TrainingSet | None = None,
                 identity: Any = None) -> None:
        check_trainable(model, recipe.batch_size)
        self.recipe, self.seed, self.step = recipe, seed, 0
        self.patcher = runtime.training_clone(model)
        self.base = self.patcher.model
        self.device = self.patcher.load_device
        self.text, self.identity = text, identity
        self.learner: Learner | None = None  # full weights are learned from loaded ones
        self.losses: list[float] = []
        self.whole = True  # false while an optimiser step is under way
        self._attached: tuple[bool, BaseWeights] | None = None
        with torch.inference_mode(False), torch.no_grad(), Scope() as scope:
            set_objects(scope, self.patcher)
            objectives.check_weighting(self.sampling, recipe)
            self.samples = load_samples(self.base, training_set, recipe, self.device)
            self.class_samples = ([] if class_set is None or recipe.class_weight == 0 else
                                  load_samples(self.base, class_set, recipe, self.device, True))
        self.groups = group_samples(self.samples)
        self.class_groups = group_samples(self.class_samples)
        self.plan = plan_before(self.base, recipe, [*self.samples, *self.class_samples], text,
                                identity)
        if recipe.method == "dreambooth":  # before gigabytes of what learns are made
            check_fits(self.plan, free_bytes(self.device))
        # Only what starts from the weights themselves has to see them loaded and patched.
        layer = LAYERS.get(recipe.method)
        starts_from_weights = layer is not None and not layer.additive
        self._load(BaseWeights.AS_LOADED if starts_from_weights else recipe.base_weights)
        with Scope() as scope:
            set_objects(scope, self.patcher)
            self.dtype = compute_type(self.base, recipe.precision, self.device)
        self.learner = Learner(self.base.diffusion_model, recipe,
                               None if text is None else text.encoders, seed, self.device)
        self.objective = Objective(recipe, self.sampling, self.predict,
                                   self._predict_before, self._identity_distance)
        self.reach = Reach({} if self.adapters is None else self.adapters.layers)
        self._options: dict[str, Any] = {}

    @property
    def sampling(self) -> Any:
        """The MODEL's own `model_sampling`, whichever of its clones is loaded."""
        return self.patcher.get_model_object("model_sampling")

    @property
    def adapters(self) -> Adapters | None:
        """What the diffusion model's layers learn; None when only words do."""
        return self.learner.adapters

    def run(self, until: int | None = None) -> Iterator[StepResult]:
        """Train up to a number of finished steps; the MODEL is changed only while this runs.

        Close the generator (`contextlib.closing`) when leaving it early.

        Raises:
            NotANumber: of a loss or gradient.
            OutOfMemory: the host's own, for the caller to explain.
        """
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        if self.step >= last:
            return
        each = self.recipe.accumulate
        times = repeats(self.samples, self.recipe.balance_poses)
        order = islice(batch_order(self.groups, self.recipe.batch_size, self.seed, times),
                       self.step * each, None)
        with self.attached():
            while self.step < last:
                try:
                    result = self._step([next(order) for _ in range(each)])
                except RuntimeError as err:
                    if self.step == 0 and "shapes cannot be multiplied" in str(err):
                        raise LikenessError("The captions' encoding does not fit this model; "
                                            "run Prepare Training with its own CLIP.") from err
                    raise
                yield result

    def state(self, key: str, **extra: Any) -> RunState:
        """The run as it stands after the last finished step."""
        return RunState(key, self.step, self.learner.tensors(), self.learner.optimizer_state(),
                        tuple(self.losses), extra)

    def restore(self, state: RunState) -> None:
        """Take a run up where it stopped."""
        self.learner.restore(state.tensors, state.optimizer)
        self.step, self.losses = state.step, list(state.losses)

    def probe(self, adapted: bool) -> torch.Tensor:
        """The model's prediction error on a fixed input and text, with or without its adapters."""
        # A file is loaded over the model's own weights, so that is where it is compared.
        with self.attached(adapted, BaseWeights.AS_LOADED), self.learner.evaluated():
            return probe(self.patcher, self.samples[0])

    @contextmanager
    def attached(self, adapted: bool = True, base: BaseWeights | None = None) -> Iterator[None]:
        """While this lasts the MODEL runs frozen, with or without what was learned.

        Inside of one another, those of the same arguments are one.

        Args:
            base: how its weights lie in memory; the recipe's choice without it.
        """
        kind = base or self.recipe.base_weights
        if self._attached == (adapted, kind):
            yield
            return
        self._load(kind)
        with Scope() as scope:
            with torch.inference_mode(False):
                if kind is not BaseWeights.AS_LOADED:
                    set_objects(scope, self.patcher)
                    quantise_layers(scope, self.patcher, self.base.diffusion_model, kind,
                                    self.device, self._learned_whole())
                    keep_running(scope, self.patcher)
                adapters = self.adapters if adapted else None
                attach(scope, self.base, self.base.diffusion_model, adapters,
                       self.recipe.gradient_checkpointing)
                set_compute_type(scope, self.base, self.dtype)
                self._options = training_options(self.patcher.model_options, self.device)
                for companion in self._companions:
                    companion.attach(scope)
            scope.set_attribute(self, "_attached", (adapted, kind))
            yield

    def _learned_whole(self) -> list[torch.nn.Module]:
        """Layers whose own weight is not asked while they learn."""
        if self.recipe.method != "dreambooth" or self.learner is None:
            return []
        return [self.base.diffusion_model.get_submodule(path) for path in self.adapters.layers]

    def predict(self, noisy: torch.Tensor, sigmas: torch.Tensor,
                conds: Mapping[str, Any]) -> torch.Tensor:
        """The model's x0 estimate as it is being trained."""
        return denoise(self.base, noisy, sigmas, conds, self._options)

    def loss(self, batch: Batch, sigmas: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The recipe's loss of a batch of photos at noise levels (B,) and noise (B, C, ...)."""
        return sum(term.mean() for term in self.terms(batch, sigmas, noise).values())

    def terms(self, batch: Batch, sigmas: torch.Tensor,
              noise: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each photo's weighted loss by term, (B,) each."""
        now = before = None
        if self.recipe.class_word_weight > 0:
            keys = [sample.item.class_key for sample in batch.samples]
            before = collate(batch.samples, keys, self.device).conds
            now = self.live_batch(batch.samples, keys).conds
        plain = batch.conds
        if self.recipe.outside_weight > 0 and self.text is not None:
            plain = collate(batch.samples, batch.captions, self.device).conds
        return self.objective.photo_terms(batch, sigmas, noise, plain, now, before)

    def _predict_before(self, noisy: torch.Tensor, sigmas: torch.Tensor,
                        conds: Mapping[str, Any]) -> torch.Tensor:
        off = self.adapters.switched_off() if self.adapters is not None else nullcontext()
        with torch.no_grad(), off:
            return self.predict(noisy, sigmas, conds)

    def _identity_distance(self, estimate: torch.Tensor, sigmas: torch.Tensor,
                           batch: Batch) -> torch.Tensor | None:
        if self.identity is None or not self.identity.active(self.step):
            return None
        return self.identity.loss(estimate, self.base, sigmas,
                                  [sample.item.points for sample in batch.samples])

    def _load(self, kind: BaseWeights = BaseWeights.AS_LOADED) -> None:
        """Bring the weights to the compute device; others may have patched or evicted them.

        Weights that become codes stay where they are offloaded, and room is made for the codes.
        """
        others = [part.patcher for part in self._companions]
        if kind is BaseWeights.AS_LOADED:
            runtime.load_models([self.patcher, *others], self.memory_required())
            return
        runtime.unload(self.patcher)
        room = self.memory_required() + device_bytes(self.patcher, self.base.diffusion_model, kind,
                                                     self._learned_whole())
        runtime.load_models(others, room)
        runtime.make_room(room, self.device, leave=others)

    @property
    def _companions(self) -> list[Any]:
        """The other networks that a step runs."""
        text = None if self.text is None else self.text.encoders
        return [part for part in (text, self.identity) if part is not None]

    def _step(self, places: Sequence[tuple[int, ...]]) -> StepResult:
        started = time.perf_counter()
        # Not around the whole generator: a mode set there would leak into whoever consumes it.
        with torch.inference_mode(False), torch.enable_grad():
            self.learner.start_step(self.step, seeded(self.seed, "ranks", self.step))
            parts = [self._accumulate(row, number) for number, row in enumerate(places)]
            self.reach.look()
            norm = self.learner.clip(self.recipe.gradient_clip)
            batches = [batch for batch, _, _ in parts]
            sigmas = torch.cat([levels for _, levels, _ in parts])
            self._check(norm, "gradient", batches, sigmas)
            self.whole = False
            self.learner.update(self.step)
            self.step += 1
            self.whole = True
        terms = {name: sum(float(part.get(name, torch.zeros(1)).mean()) for _, _, part in parts)
                 / len(parts) for name in dict.fromkeys(n for _, _, part in parts for n in part)}
        self.losses.append(sum(terms.values()))
        return StepResult(
            self.step, self.losses[-1], terms, self.recipe.learning_rate_at(self.step - 1),
            norm.item(), time.perf_counter() - started,
            tuple(photo for batch in batches for photo in batch.photos), tuple(sigmas.tolist()),
            tuple(noise_level(self.base.model_sampling, sigmas).tolist()),
            tuple(torch.cat([part["photo"] for _, _, part in parts]).tolist()))

    def _accumulate(self, places: tuple[int, ...],
                    number: int) -> tuple[Batch, torch.Tensor, dict[str, torch.Tensor]]:
        """Add the gradient of one batch; return it, its noise levels and its terms."""
        names = ("step", self.step) if number == 0 else ("step", self.step, number)
        generator = seeded(self.seed, *names)
        samples = [self.samples[place] for place in places]
        batch = self._batch(samples, generator)
        sigmas, noise = self._noise(batch, generator)
        terms = self.terms(batch, sigmas, noise)
        del noise  # the graph keeps what it needs
        penalty = None if self.text is None else self.text.encoders.norm_penalty()
        self._descend(terms, [batch], sigmas, penalty)
        if self.class_samples:
            terms |= self._class_batch(len(places), generator)
        if penalty is not None:
            terms["word length"] = penalty.reshape(1)
        return batch, sigmas.cpu(), {name: term.detach().cpu() for name, term in terms.items()}

    def _class_batch(self, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Add the gradient of as many class photos, of one shape; a pass of its own."""
        first = int(torch.randint(len(self.class_samples), (), generator=generator))
        group = next(group for group in self.class_groups if first in group)
        others = torch.randint(len(group), (rows - 1,), generator=generator).tolist()
        samples = [self.class_samples[first], *(self.class_samples[group[at]] for at in others)]
        batch = self._batch(samples, generator)
        sigmas, noise = self._noise(batch, generator)
        terms = self.objective.class_terms(batch, sigmas, noise)
        self._descend(terms, [batch], sigmas, None)
        return terms

    def _batch(self, samples: Sequence[Sample], generator: torch.Generator) -> Batch:
        return self.live_batch(samples, choose_captions(samples, self.recipe, generator))

    def live_batch(self, samples: Sequence[Sample], captions: Sequence[str]) -> Batch:
        """Samples of one shape with these captions, encoded by what the text encoders are now."""
        if self.text is None or not self.text.learns_from(captions):
            return collate(samples, captions, self.device)
        live = self.text.conds(self.base, samples, captions, self.recipe.guidance, self.device)
        return collate(samples, captions, self.device, live)

    def _noise(self, batch: Batch,
               generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        latents, recipe = batch.latents, self.recipe
        sigmas = draw_sigmas(self.base.model_sampling, recipe, len(latents), generator,
                             latents.shape[-1] * latents.shape[-2] // 4)
        noise = torch.randn(latents.shape, generator=generator)
        if recipe.noise_offset > 0:
            one = (1,) * (latents.ndim - 2)
            noise += recipe.noise_offset * torch.randn(*latents.shape[:2], *one,
                                                       generator=generator)
        return sigmas.to(self.device), noise.to(self.device)

    def _descend(self, terms: Mapping[str, torch.Tensor], batches: Sequence[Batch],
                 sigmas: torch.Tensor, penalty: torch.Tensor | None) -> None:
        loss = sum(term.mean() for term in terms.values())
        self._check(loss, "loss", batches, sigmas)
        loss = loss if penalty is None else loss + penalty
        (loss / self.recipe.accumulate).backward()

    def _check(self, value: torch.Tensor, what: str, batches: Sequence[Batch],
               sigmas: torch.Tensor) -> None:
        if torch.isfinite(value).all():
            return
        levels = ", ".join(f"{sigma:.3g}" for sigma in sigmas.tolist())
        photos = ", ".join(photo for batch in batches for photo in batch.photos)
        advice = "lower the learning rate or take that photo out"
        if self.step == 0:  # the learning rate has had no say yet
            advice = ("nothing has been learned yet, so the model itself gives no number: set "
                      "`precision` to float32, or take that photo out")
        raise NotANumber(
            f"The {what} of step {self.step + 1} is not a number (photo {photos}; noise level "
            f"{levels}); {advice}")

    def memory_required(self) -> int:
        """Bytes to keep free beside the weights; the host places the weights by it."""
        return self.plan.resident
