"""LoRAs that run beside layers whose weights are codes, instead of being added to the weights.

A host that adds a LoRA to a quantised weight quantises the sum anew, which loses a small change
whole: on ComfyUI 0.33 the picture was off by 1.04 (fp8), 0.39 (int8) and 4.0 (nvfp4) times of what
the LoRA changes. Its own "bypass" adds the LoRA to the layer's output; so does this, with the
host's adapters, but for any number of LoRAs on one MODEL and for LoRAs of a part of a fused layer.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch
from torch import nn

from ...tensors import fingerprint
from .formats import is_packed
from .scope import Scope

_HOSTS = "comfy.weight_adapter.bypass"
_KEY, _HOSTS_KEY = "likeness_beside", "bypass_lora"
Key = Any  # of a weight: its name, or that with the rows that are meant
Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Part:
    """What one LoRA adds to one layer."""

    adapter: Any  # the host's, made for this layer and strength
    rows: tuple[int, int] | None = None  # first and number of the layer's outputs; None: all

    def around(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """A layer's output y for x (..., in) or (B, C, ...), changed."""
        axis = 1 if getattr(self.adapter, "is_conv", False) else y.ndim - 1
        first, count = self.rows or (0, y.shape[axis])
        share = y.narrow(axis, first, count)
        changed = share + self.adapter.h(x, share)
        if self.rows is None:
            return changed
        end = first + count
        return torch.cat([y.narrow(axis, 0, first), changed,
                          y.narrow(axis, end, y.shape[axis] - end)], axis)


class _Hook:
    """One layer's forward with parts beside it, while the host has injected it."""

    def __init__(self, module: nn.Module, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self._module, self._before = module, None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        y = self._before(x, *args, **kwargs)
        for part in self.parts:
            y = part.around(y, x)
        return y

    def inject(self, device: torch.device) -> None:
        for part in self.parts:
            part.adapter.weights = tuple(
                value.to(device) if isinstance(value, torch.Tensor) else value
                for value in part.adapter.weights)
        self._before = self._module.forward
        self._module.forward = self.forward

    def eject(self) -> None:
        if getattr(vars(self._module).get("forward"), "__self__", None) is not self:
            return  # the host has put back what was there before
        if getattr(self._before, "__func__", None) is type(self._module).forward:
            del self._module.forward
        else:
            self._module.forward = self._before


class Beside(comfy.patcher_extension.PatcherInjection):
    """All LoRAs that run beside a MODEL's layers, as one injection of the host.

    The host ejects injections in the order in which it has injected them, which does not undo
    those that stand round each other; this one holds the others inside of it.

    Attributes:
        parts: by the layer's path, in the order in which they act.
    """

    def __init__(self, model: nn.Module, parts: Mapping[str, Sequence[Part]],
                 inside: Sequence[Any]) -> None:
        self.parts = {path: tuple(found) for path, found in parts.items()}
        self.inside = tuple(inside)
        self._hooks = [_Hook(model.get_submodule(path), found)
                       for path, found in self.parts.items()]
        super().__init__(self._inject, self._eject)

    def _inject(self, patcher: Any) -> None:
        for injection in self.inside:
            injection.inject(patcher)
        for hook in self._hooks:
            hook.inject(patcher.load_device)

    def _eject(self, patcher: Any) -> None:
        for hook in reversed(self._hooks):
            hook.eject()
        for injection in reversed(self.inside):
            injection.eject(patcher)


def can_run_beside() -> bool:
    """Whether the host's adapters can be run beside a layer."""
    try:
        importlib.import_module(_HOSTS)
    except ImportError:  # hosts before 0.14
        return False
    return True


def split(patcher: Any, loaded: Mapping[Key, Any]) -> tuple[dict[Key, Any], dict[Key, Any]]:
    """What of a LoRA the host must add to the weights, and what is to run beside codes.

    Args:
        loaded: the host's adapters by the weights' keys, as `comfy.lora.load_lora` gives them.
    """
    beside = {}
    if can_run_beside():
        beside = {key: adapter for key, adapter in loaded.items()
                  if _is_coded(patcher, key) and _is_exact_beside(adapter, key)}
    return {key: adapter for key, adapter in loaded.items() if key not in beside}, beside


def add_beside(patcher: Any, adapters: Mapping[Key, Any], strength: float) -> None:
    """Make a clone of a patcher run adapters beside its layers; nothing that others hold changes.

    What was on the patcher already runs on; a trained layer's own part acts before older ones, as
    it did in training.
    """
    hook = importlib.import_module(_HOSTS).BypassForwardHook
    parts: dict[str, list[Part]] = {}
    for key, adapter in adapters.items():
        name, rows, _ = _parsed(key)
        path = name.removesuffix(".weight")
        # The hook tells an adapter what kind of layer it is beside; the file's own is shared.
        own = copy.copy(adapter)
        hook(patcher.model.get_submodule(path), own, strength)
        parts.setdefault(path, []).append(Part(own, rows))
    older = parts_of(patcher)
    for path, found in older.items():
        parts.setdefault(path, []).extend(found)
    inside = list(patcher.injections.get(_HOSTS_KEY, ()))
    for held in patcher.injections.get(_name_of(patcher), ()):
        inside += held.inside
    for name in [name for name in patcher.injections if name == _HOSTS_KEY or _is_ours(name)]:
        patcher.remove_injections(name)
    # The host takes clones whose injections have the same names for the same model.
    patcher.set_injections(_name(parts), [Beside(patcher.model, parts, inside)])
    patcher.is_injected = False  # a clone of a model that is loaded says that it is


def parts_of(patcher: Any) -> dict[str, tuple[Part, ...]]:
    """What runs beside a patcher's layers because of `add_beside`, by path."""
    held = patcher.injections.get(_name_of(patcher), ())
    return dict(held[0].parts) if held else {}


def rounded(patcher: Any) -> set[str]:
    """The weights of fewer than 16 bits that a patcher's patches are added to, and rounded with."""
    return {key for key in patcher.patches if _is_coded(patcher, key)}


def only_beside(patcher: Any) -> bool:
    """Whether a patcher's injections are LoRAs beside layers alone, ours or the host's."""
    return all(_is_ours(name) or name == _HOSTS_KEY for name, held in patcher.injections.items()
               if held)


def keep_running(scope: Scope, patcher: Any) -> None:
    """Let what runs beside a patcher's layers run although the patcher is not loaded."""
    if patcher.injections and not patcher.is_injected:
        patcher.inject_model()
        scope.at_end(patcher.eject_model)


def running(module: nn.Module) -> tuple[Part, ...]:
    """What the host has injected beside a layer, for a backward pass: tensors that it can save."""
    found: list[Part] = []
    forward = vars(module).get("forward")
    while (hook := getattr(forward, "__self__", None)) is not None:
        if isinstance(hook, _Hook):
            inner, forward = list(hook.parts), hook._before
        elif type(hook).__module__ == _HOSTS:
            inner, forward = [Part(hook.adapter)], hook.original_forward
        else:
            break
        found = [*inner, *found]
    return tuple(Part(_for_autograd(part.adapter), part.rows) for part in found)


def around(run: Product, parts: Sequence[Part]) -> Product:
    """A layer's product with parts beside it."""
    def changed(x: torch.Tensor) -> torch.Tensor:
        y = run(x)
        for part in parts:
            y = part.around(y, x)
        return y

    return changed


def _for_autograd(adapter: Any) -> Any:
    own = copy.copy(adapter)
    own.weights = tuple(value.detach().clone() if isinstance(value, torch.Tensor) else value
                        for value in adapter.weights)
    return own


def _name(parts: Mapping[str, Sequence[Part]]) -> str:
    """A name for injections that says what they hold."""
    tensors = {f"{path} {at} {part.adapter.multiplier} {part.rows} {number}": value
               for path, found in parts.items() for at, part in enumerate(found)
               for number, value in enumerate(part.adapter.weights)
               if isinstance(value, torch.Tensor)}
    return f"{_KEY}_{fingerprint(tensors)[:16]}"


def _name_of(patcher: Any) -> str:
    return next((name for name in patcher.injections if _is_ours(name)), _KEY)


def _is_ours(name: str) -> bool:
    return name.startswith(_KEY)


def _parsed(key: Key) -> tuple[str, tuple[int, int] | None, Any]:
    """A patch key's weight, rows and function."""
    if isinstance(key, str):
        return key, None, None
    name, span, function = (*key, None, None)[:3]
    return name, None if span is None else (span[1], span[2]), function


def _is_coded(patcher: Any, key: Key) -> bool:
    """Whether a key means a dense layer's or convolution's weight of fewer than 16 bits."""
    name, _, _ = _parsed(key)
    try:
        weight = patcher.model.get_submodule(name.rpartition(".")[0]).weight
    except AttributeError:
        return False
    return name.endswith(".weight") and weight.ndim > 1 and (
        is_packed(weight) or weight.element_size() == 1)


def _is_exact_beside(adapter: Any, key: Key) -> bool:
    """Whether an adapter beside a layer is the same as its change of the weight."""
    base = importlib.import_module("comfy.weight_adapter").WeightAdapterBase
    _, _, function = _parsed(key)
    if not isinstance(adapter, base) or function is not None:
        return False
    if not isinstance(key, str) and key[1] is not None and key[1][0] != 0:
        return False  # a part of the inputs
    match getattr(adapter, "name", ""):
        case "lora":  # lengths of DoRA and a new shape change the weight itself
            return adapter.weights[4] is None and adapter.weights[5] is None
        case "loha":
            return adapter.weights[7] is None
        case "lokr":
            return adapter.weights[8] is None
    return False  # OFT among them: it turns the bias too, and on 0.33 fails beside dense layers
