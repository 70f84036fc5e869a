"""Training's one place to change a cached model, and to leave it exactly as it was.

A MODEL in the executor's cache is shared by every graph that uses it, so each change made for
training is recorded here and undone last in, first out, whatever ended the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import torch
from torch import nn

from ...errors import LikenessError

_ABSENT = object()


class Scope:
    """A stack of reversible changes; a context manager that takes them all back at its end."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Scope:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take every change back; one that fails does not keep the others from being undone."""
        failed: Exception | None = None
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as err:
                failed = failed or err
        if failed is not None:
            raise failed

    def at_end(self, undo: Callable[[], None]) -> None:
        """Call something when the scope ends, before what was changed earlier is taken back."""
        self._undo.append(undo)

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute in the owner's own dictionary, whatever its class says of the name."""
        before = vars(owner).get(name, _ABSENT)
        vars(owner)[name] = value

        def undo() -> None:
            if before is _ABSENT:
                del vars(owner)[name]
            else:
                vars(owner)[name] = before

        self._undo.append(undo)

    def set_object(self, root: Any, path: str, value: Any) -> None:
        """Set what lies at a dotted path below an object, a module's parts included."""
        *parents, name = path.split(".")
        owner = root
        for parent in parents:
            owner = getattr(owner, parent)
        own = (vars(owner), *(vars(owner).get(table, {})
                              for table in ("_modules", "_parameters", "_buffers")))
        present = any(name in table for table in own)
        before = getattr(owner, name)
        setattr(owner, name, value)

        def undo() -> None:
            if present:
                setattr(owner, name, before)
            else:  # a method or a default of the class
                delattr(owner, name)

        self._undo.append(undo)

    def override_forward(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        """Make calls of this one module run `forward`.

        Raises:
            LikenessError: something else has already replaced the module's forward.
        """
        present = vars(module).get("forward", _ABSENT)
        own = getattr(present, "__func__", None) is type(module).forward
        if present is not _ABSENT and not own:
            raise LikenessError(
                f"A {type(module).__name__} of this model has been replaced by another extension "
                "(compiled or hooked), so it cannot be trained; connect the model as loaded.")
        self.set_attribute(module, "forward", forward)

    def swap_parameter(self, module: nn.Module, name: str, tensor: torch.Tensor) -> None:
        """Put a frozen parameter with these values in the place of another."""
        self._swap(module._parameters, name, nn.Parameter(tensor, requires_grad=False))

    def swap_buffer(self, module: nn.Module, name: str, tensor: torch.Tensor) -> None:
        """Put a tensor in the place of a buffer."""
        self._swap(module._buffers, name, tensor)

    def _swap(self, table: dict[str, Any], name: str, value: Any) -> None:
        before = table[name]
        table[name] = value

        def undo() -> None:
            table[name] = before

        self._undo.append(undo)

    def freeze(self, parameter: nn.Parameter) -> None:
        """Stop gradients of a parameter."""
        if not parameter.requires_grad:
            return
        parameter.requires_grad_(False)

        def undo() -> None:
            # A weight born under inference mode takes its flag back only under inference mode.
            with torch.inference_mode(parameter.is_inference()):
                parameter.requires_grad_(True)

        self._undo.append(undo)

    def borrow_small_tensors(self, root: nn.Module, large: Iterable[nn.Module]) -> None:
        """Replace what autograd may save for backward by copies that it can save.

        Weights loaded under inference mode must not be saved for backward, and neither `to` nor
        `detach` frees them of that, only a copy. The weights of `large` modules never enter the
        graph (they run frozen) and stay where they are; norms, tables and biases are copied.
        """
        kept = set(large)
        for module in root.modules():
            if module in kept or isinstance(module, nn.Embedding):
                for parameter in module.parameters(recurse=False):
                    self.freeze(parameter)
                continue
            for name, parameter in list(module.named_parameters(recurse=False)):
                self.swap_parameter(module, name, parameter.detach().clone())
            for name, buffer in list(module.named_buffers(recurse=False)):
                self.swap_buffer(module, name, buffer.detach().clone())
