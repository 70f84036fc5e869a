"""The learned parts of all layers of one network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from ... import runtime
from ...errors import LikenessError
from ..frozen import layers as frozen
from ..recipes.adapters import AdapterRecipe
from ..recipes.whole import DreamBoothRecipe
from .full import FullLayer
from .layer import AdapterLayer
from .loha import LoHaLayer
from .lokr import LoKrLayer
from .lora import DoRALayer, LoRALayer
from .oft import OFTLayer
from .targets import target_layers

# Technique -> the class of its layers.
LAYERS: Mapping[str, type[AdapterLayer]] = {
    "lora": LoRALayer, "qlora": LoRALayer, "dora": DoRALayer, "loha": LoHaLayer,
    "lokr": LoKrLayer, "oft": OFTLayer, "dreambooth": FullLayer}


class Adapters(nn.Module):
    """Every adapter of a run, by the path of its layer in a network.

    Args:
        model: the network whose layers learn, a diffusion model or text encoders.

    Raises:
        LikenessError: no layer fits the recipe's preset and block ranks, or one cannot learn by
            this technique or at this rank.
    """

    def __init__(self, model: nn.Module, recipe: AdapterRecipe | DreamBoothRecipe,
                 generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        kind = LAYERS[recipe.method]
        found = target_layers(model, recipe.target)
        if isinstance(recipe, AdapterRecipe):
            found = {path: module for path, module in found.items() if recipe.rank_of(path) > 0}
        if not found:
            raise LikenessError("`block_ranks` gives every layer rank 0, so nothing would learn; "
                                "give some layers a rank.")
        self.layers = {path: kind(path, module, recipe, generator, device)
                       for path, module in found.items()}
        # Registered under numbers because a module's name may not contain a dot.
        self.registered = nn.ModuleList(self.layers.values())
        self.active = True

    def tensors(self) -> dict[str, torch.Tensor]:
        """The learned values by name, detached, on the CPU."""
        return {f"{path}.{name}": parameter.detach().cpu().clone()
                for path, layer in self.layers.items()
                for name, parameter in layer.named_parameters()}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave, in place, so that an optimiser keeps its parameters."""
        with torch.no_grad():
            for path, layer in self.layers.items():
                for name, parameter in layer.named_parameters():
                    parameter.copy_(tensors[f"{path}.{name}"])

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """The parameters by what their learning rate is multiplied by."""
        groups: dict[float, list[nn.Parameter]] = {}
        for layer in self.layers.values():
            for name, parameter in layer.named_parameters():
                groups.setdefault(layer.rate_factor(name), []).append(parameter)
        return groups

    def start_step(self, generator: torch.Generator | None) -> None:
        """Draw which ranks a whole step leaves out; None, to be called after it: none are."""
        for layer in self.layers.values():
            layer.start_step(generator)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """While this lasts the network runs as if it had no adapters."""
        self.active = False
        try:
            yield
        finally:
            self.active = True

    def forwards(self, model: nn.Module) -> Iterator[tuple[nn.Module, Callable]]:
        """The adapted layers with what they run instead of their own forward."""
        for path, layer in self.layers.items():
            module = model.get_submodule(path)
            yield module, lambda x, layer=layer, module=module: self._run(layer, module, x)

    def _run(self, layer: AdapterLayer, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        runtime.throw_if_cancelled()
        return layer(module, x) if self.active else frozen.run(module, x)
