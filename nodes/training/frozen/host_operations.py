"""Operations that newer hosts run without a backward pass, replaced by ones that have one.

What a host lacks is left alone, so nothing here asks for its version.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import comfy.model_management
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .scope import Scope

_KERNELS = "comfy_kitchen"
# Where the kernels' package writes its rotations and norms as plain, differentiable torch.
_PLAIN = ("comfy_kitchen.backends.eager.rope", "comfy_kitchen.backends.eager.adaln")
_TEXT_ENCODERS = "comfy.text_encoders."


def attach_operations(scope: Scope) -> None:
    """Make the host choose operations with a backward pass until the scope ends.

    Networks that ask the host whether it trains are told so. The others (Cosmos-Predict2, Anima and
    Ernie on ComfyUI 0.33) call kernels of comfy-kitchen 0.2, which are registered with torch
    without a formula for gradients, whatever back end runs them.
    """
    if hasattr(comfy.model_management, "in_training"):
        scope.set_attribute(comfy.model_management, "in_training", True)
    try:
        kernels = importlib.import_module(_KERNELS)
    except ImportError:  # hosts before 0.16 have none
        return
    for name, plain in _plain_operations().items():
        if isinstance(vars(kernels).get(name), FunctionType):
            scope.set_attribute(kernels, name, plain)


def _plain_operations() -> Mapping[str, Callable[..., Any]]:
    """The kernels' functions by name, as torch's own operations; none that write in place."""
    found = {}
    for place in _PLAIN:
        try:
            module = importlib.import_module(place)
        except ImportError:  # another release lays them elsewhere
            continue
        found |= {name: value for name, value in vars(module).items()
                  if isinstance(value, FunctionType) and value.__module__ == place
                  and not name.startswith("_") and not name.endswith("_")}
    return found


class _NewResults(TorchFunctionMode):
    """Lets no operation write its result into a tensor that autograd may need as it was."""

    def __torch_function__(self, function: Callable[..., Any], types: Sequence[type],
                           args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        given = dict(kwargs or {})
        if "out" in given and torch.is_grad_enabled():
            del given["out"]
        return function(*args, **given)


def writes_into_input(block: nn.Module) -> bool:
    """Whether a block adds its last sum into its own input with `out=`, which autograd refuses.

    Those of the host's language models do (Qwen, Gemma, Mistral, Llama; ComfyUI 0.33).
    """
    return type(block).__module__.startswith(_TEXT_ENCODERS)


def out_of_place(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A block's forward with a new tensor for every result that it would write into another.

    Such blocks go on with what the operation returns. Inside the block and not round the network,
    so that a checkpoint's second run, which may happen in another thread, does the same.
    """
    def run(*args: Any, **kwargs: Any) -> Any:
        with _NewResults():
            return forward(*args, **kwargs)

    return run
