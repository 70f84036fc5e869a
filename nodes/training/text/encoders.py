"""What of a CLIP learns during a run, and the conditionings that carry its gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ... import runtime
from ...brackets import literal_tokens
from ...errors import LikenessError
from ...tensors import Conditioning
from ..adapters.attach import attach
from ..adapters.group import Adapters
from ..frozen.scope import Scope
from ..recipes.adapters import AdapterRecipe
from ..recipes.base import Recipe
from ..recipes.fields import Optimizer
from .tokens import TokenRows, mentions

# What an encoding sets on each encoder, besides what `attach` replaces.
_OPTIONS = ("layer", "layer_idx", "return_projected_pooled", "execution_device")


class TextEncoders:
    """The text encoders of a run: rows of a new word, adapters beside the layers, or both.

    Args:
        clip: host CLIP; changed only inside `attach`'s scope.
        start_rows: what the new word starts from, by encoder name, instead of a word.

    Attributes:
        tokens: the new word; None when the recipe has none.
        adapters: of the encoders' layers; None when the recipe has none.
        skipped: layers of the recipe's preset that no gradient reaches, which have no adapter.

    Raises:
        LikenessError: there is no text encoder, nothing of it learns, it carries hooks, or it and
            the recipe do not fit together.
    """

    def __init__(self, clip: Any, recipe: Recipe, trigger: str, class_noun: str,
                 start_rows: Mapping[str, torch.Tensor] | None = None, *,
                 generator: torch.Generator, device: torch.device | None = None) -> None:
        if clip is None:
            raise LikenessError("This checkpoint has no text encoder; connect a CLIP loader.")
        if clip.patcher.forced_hooks is not None:
            raise LikenessError("The CLIP carries hooks of other nodes, which training would not "
                                "see; connect the CLIP from before those nodes.")
        self.clip, self.recipe, self.trigger = clip, recipe, trigger.strip()
        self.device = device or clip.patcher.load_device
        self.rows_learn = recipe.tokens is not None
        self.tokens: TokenRows | None = None
        self.adapters: Adapters | None = None
        self.skipped: tuple[str, ...] = ()
        self._fixed: dict[tuple[str, bytes], Conditioning] = {}
        self.prepare()
        with torch.inference_mode(False):
            if recipe.tokens is not None:
                with torch.no_grad():
                    self.tokens = TokenRows(clip, recipe.tokens, self.trigger, class_noun,
                                            start_rows, self.device)
            if isinstance(recipe, AdapterRecipe) and recipe.text_encoder:
                self.adapters = Adapters(clip.cond_stage_model, recipe, generator, self.device)
                self._leave_out_idle_layers()
        if self.tokens is None and self.adapters is None:
            raise LikenessError("The recipe teaches nothing to the text encoder; give it token "
                                "settings or switch `text_encoder` on.")

    @property
    def network(self) -> nn.Module:
        """The host's module that holds all encoders."""
        return self.clip.cond_stage_model

    @property
    def patcher(self) -> Any:
        """What the host's memory management loads."""
        return self.clip.patcher

    def prepare(self) -> None:
        """Bring the weights to the compute device; call it in the caller's own autograd mode."""
        runtime.load_models([self.patcher])

    def attach(self, scope: Scope) -> None:
        """Make the encoders run frozen, with what learns, until the scope ends.

        Call `prepare` first.

        Raises:
            LikenessError: a layer that cannot be read, or that something else has replaced.
        """
        with torch.inference_mode(False):
            for encoder in self.network.children():
                for name in _OPTIONS:
                    if name in vars(encoder):
                        scope.set_attribute(encoder, name, vars(encoder)[name])
            attach(scope, self.network, self.network, self.adapters,
                   self.recipe.gradient_checkpointing)

    def check_captions(self, captions: Iterable[str]) -> None:
        """Refuse photos' captions that would teach the new word nothing.

        Raises:
            LikenessError: one has no trigger while a new word learns; the text names it.
        """
        for caption in captions:
            if self.tokens is not None and caption and not mentions(caption, self.trigger):
                raise LikenessError(f"The caption `{caption}` does not contain the trigger "
                                    f"`{self.trigger}` as a word, so the new word would learn "
                                    "nothing from its photo; add it to the caption.")

    def encode(self, caption: str, with_trigger: bool = True) -> Conditioning:
        """Encode a caption inside `attach`'s scope, differentiable in what learns.

        A caption in which nothing learns is encoded once. Brackets in captions are no weights.

        Args:
            with_trigger: whether a caption without the trigger is a mistake; false for captions
                of class photos. The empty caption is none.

        Returns:
            [[tokens (1, T, D), {"pooled_output": (1, P), ...}]]

        Raises:
            LikenessError: the caption lacks the trigger while a new word learns.
        """
        if with_trigger:
            self.check_captions([caption])
        adapted = self.adapters is not None and self.adapters.active
        if adapted or (self.rows_learn and mentions(caption, self.trigger)):
            return self._encode(caption)
        rows = self._rows_as_bytes() if mentions(caption, self.trigger) else b""
        if (caption, rows) not in self._fixed:
            # What is born under inference mode could not be used by a later training step.
            with torch.inference_mode(False), torch.no_grad():
                self._fixed[caption, rows] = self._encode(caption)
        return self._fixed[caption, rows]

    def _rows_as_bytes(self) -> bytes:
        """The new word's values; an average may be swapped in for a while."""
        if self.tokens is None:
            return b""
        return b"".join(rows.detach().cpu().numpy().tobytes()
                        for rows in self.tokens.rows.values())

    def _encode(self, caption: str) -> Conditioning:
        self.network.reset_clip_options()
        if self.clip.layer_idx is not None:
            self.network.set_clip_options({"layer": self.clip.layer_idx})
        if any("execution_device" in vars(encoder) for encoder in self.network.children()):
            self.network.set_clip_options({"execution_device": self.patcher.load_device})
        tokens = (literal_tokens(self.clip, caption) if self.tokens is None
                  else self.tokens.tokens(caption))
        # What CLIP.encode_from_tokens does after loading weights, which must not happen here.
        cond, pooled, *extra = self.network.encode_token_weights(tokens)
        options = {"pooled_output": pooled, **(extra[0] if extra else {})}
        self.clip.add_hooks_to_dict(options)
        return [[cond, options]]

    def start_step(self, step: int, generator: torch.Generator | None) -> None:
        """Draw what holds for a step, counted from 0, and stop the rows when their share is over.

        Rows that have stopped get no gradient, so an optimiser leaves them as they are.
        """
        if self.adapters is not None:
            self.adapters.start_step(generator)
        if self.tokens is None:
            return
        self.rows_learn = step < self.recipe.tokens.share * self.recipe.steps
        for rows in self.tokens.rows.values():
            rows.requires_grad_(self.rows_learn)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """While this lasts the encoders run without adapters; the new word stays."""
        if self.adapters is None:
            yield
        else:
            with self.adapters.switched_off():
                yield

    def norm_penalty(self) -> torch.Tensor:
        """What the rows' lengths add to the loss, a scalar; 0 when no rows learn."""
        if self.tokens is None or not self.rows_learn:
            return torch.zeros((), device=self.device)
        return self.recipe.tokens.norm_weight * self.tokens.penalty()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups: `params`, `lr` before any schedule, `name`, and their weight decay.

        Decay would shorten the rows, whose length the penalty holds: they have none.
        """
        groups = []
        if self.tokens is not None:
            # Prodigy finds one rate for all groups and takes no ratios between them.
            even = self.recipe.optimizer is Optimizer.PRODIGY
            groups += [{"params": [rows], "name": f"tokens {name}", "weight_decay": 0.0,
                        "lr": self.recipe.tokens.learning_rate
                        * (1.0 if even else self.tokens.rate_factor(name))}
                       for name, rows in self.tokens.rows.items()]
        if self.adapters is not None:
            rate = self.recipe.learning_rate * self.recipe.text_rate
            groups += [{"params": parameters, "name": f"text adapters x{factor:g}",
                        "weight_decay": self.recipe.weight_decay, "lr": rate * factor}
                       for factor, parameters in self.adapters.parameter_groups().items()]
        return groups

    def parameters(self) -> list[nn.Parameter]:
        """Everything that learns."""
        return [parameter for group in self.parameter_groups() for parameter in group["params"]]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The learned values by name, detached, on the CPU."""
        rows = {} if self.tokens is None else {
            f"tokens.{name}": value.detach().cpu().clone()
            for name, value in self.tokens.rows.items()}
        learned = {} if self.adapters is None else self.adapters.tensors()
        return {**rows, **{f"adapters.{name}": value for name, value in learned.items()}}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave, in place, so that an optimiser keeps its parameters."""
        self._fixed.clear()
        if self.tokens is not None:
            with torch.no_grad():
                for name, rows in self.tokens.rows.items():
                    rows.copy_(tensors[f"tokens.{name}"])
        if self.adapters is not None:
            self.adapters.load_tensors({name.removeprefix("adapters."): value
                                        for name, value in tensors.items()
                                        if name.startswith("adapters.")})

    def _leave_out_idle_layers(self) -> None:
        """Drop adapters whose layers the conditioning does not depend on.

        SDXL, for one, reads CLIP-L before its last layer.
        """
        with Scope() as scope, torch.enable_grad():
            self.attach(scope)
            (cond, options), = self._encode("")
            outputs = [cond, options["pooled_output"]]
            total = sum(value.sum() for value in outputs if value is not None)
            learned = {path: list(layer.parameters())
                       for path, layer in self.adapters.layers.items()}
            every = [parameter for group in learned.values() for parameter in group]
            reached = dict(zip(map(id, every), torch.autograd.grad(total, every,
                                                                   allow_unused=True),
                               strict=True))
        self.skipped = tuple(path for path, group in learned.items()
                             if all(reached[id(parameter)] is None for parameter in group))
        for path in self.skipped:
            del self.adapters.layers[path]
        self.adapters.registered = nn.ModuleList(self.adapters.layers.values())
