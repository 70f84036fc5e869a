"""Witnesses of the true gradient that share nothing with the training code.

A second copy of the network is built in double precision, with each adapter as a plain product
`x (W + scale up down)^T`: no frozen layers, no copies for norms, no checkpoints. Two witnesses ask
it for the truth:

* Plain autograd while `x += y` makes a new tensor, so nothing that autograd saved changes later.
* Central differences along random directions over the host's own forward, in-place sums included,
  which need no autograd at all and would show if the first witness had changed the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
import training_models
from kernel_formulas import formulas_for_kernels
from torch.overrides import TorchFunctionMode

# `x += y` reports itself as `add_`, so `x.add_(y)` as a statement would lose its sum: the second
# witness and the equal losses show that no network does that.
_NEW_TENSOR: Mapping[Callable, Callable] = {
    torch.Tensor.add_: torch.add, torch.Tensor.sub_: torch.sub, torch.Tensor.mul_: torch.mul,
    torch.Tensor.div_: torch.div}
_CASTS = (torch.Tensor.to, torch.Tensor.float, torch.Tensor.type, torch.Tensor.type_as)


class _Double(TorchFunctionMode):
    """Keeps double precision where the host casts to single.

    Timesteps start in single precision and stay so, as the trainer sees them.
    """

    def __init__(self, out_of_place: bool) -> None:
        super().__init__()
        self.out_of_place = out_of_place
        self.replaced = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.out_of_place and function in _NEW_TENSOR and any(
                isinstance(value, torch.Tensor) and value.requires_grad for value in args):
            self.replaced += 1
            return _NEW_TENSOR[function](*args, **kwargs)
        result = function(*args, **kwargs)
        if function in _CASTS and (
                args[0].dtype == torch.float64 and result.dtype == torch.float32):
            return args[0]
        return result


@dataclass(eq=False)
class Truth:
    """A network in double precision with adapters whose values can be set.

    Attributes:
        base: the host's object round the network.
        parameters: "path.down" and "path.up" -> leaves.
        latents: what is to be estimated.
        slope_of_estimate: (B,), by how much an estimate changes with the network's output.
        replaced: sums in place that the last loss made anew.
    """

    base: Any
    parameters: dict[str, torch.Tensor]
    noisy: torch.Tensor
    sigmas: torch.Tensor
    conds: Mapping[str, Any]
    latents: torch.Tensor
    slope_of_estimate: torch.Tensor
    options: Mapping[str, Any]
    replaced: int = 0

    def loss(self, out_of_place: bool) -> torch.Tensor:
        """Mean squared error of what the network itself predicts: noise, velocity or flow.

        Sums in place are not differentiated: a graph through them hangs in a circle that no
        collector sees, and with it the network would never be freed.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(out_of_place), \
                formulas_for_kernels(), _Double(out_of_place) as mode:
            estimate = self.base.apply_model(
                self.noisy, self.sigmas, transformer_options=dict(self.options), **self.conds)
        self.replaced = mode.replaced
        shape = (len(self.sigmas),) + (1,) * (self.noisy.ndim - 1)
        return ((self.latents - estimate) / self.slope_of_estimate.reshape(shape)).square().mean()

    @cached_property
    def gradients(self) -> dict[str, torch.Tensor]:
        """The gradient of each adapter's values by plain autograd, out of place."""
        loss = self.loss(out_of_place=True)
        found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        return {name: torch.zeros_like(value) if gradient is None else gradient
                for (name, value), gradient in zip(self.parameters.items(), found, strict=True)}

    def slope(self, direction: Mapping[str, torch.Tensor], step: float = 1e-4) -> float:
        """The loss's derivative along a direction, from two forwards of the host's own code."""
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                for name, value in self.parameters.items():
                    value.add_(direction[name], alpha=sign * step)
            losses.append(self.loss(out_of_place=False).item())
            with torch.no_grad():
                for name, value in self.parameters.items():
                    value.sub_(direction[name], alpha=sign * step)
        return (losses[0] - losses[1]) / (2 * step)

    def directions(self, count: int) -> list[dict[str, torch.Tensor]]:
        """Random directions over all adapters, as long as the values themselves."""
        generator = torch.Generator().manual_seed(23)
        return [{name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
                 * value.detach().square().mean().sqrt()
                 for name, value in self.parameters.items()} for _ in range(count)]


def make_truth(name: str, trainer: Any, batch: Any, sigmas: torch.Tensor,
               noise: torch.Tensor) -> Truth:
    """The witness for what a trainer does to one batch; the trainer must not be attached."""
    with torch.inference_mode(False):
        sampling = trainer.base.model_sampling
        twin = training_models.make_model(name, dtype=torch.float64).model
        network = twin.diffusion_model.double().requires_grad_(False)
        network.load_state_dict({name: value.double() for name, value in
                                 trainer.base.diffusion_model.state_dict().items()})
        for module in network.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)):
                module.register_forward_pre_hook(lambda _, given: (given[0].double(),))
        parameters = {}
        for path, layer in trainer.adapters.layers.items():
            down, up = (value.detach().double().clone().requires_grad_()
                        for value in (layer.down, layer.up))
            parameters[f"{path}.down"], parameters[f"{path}.up"] = down, up
            _add(network.get_submodule(path), down, up, layer.scale)
        latents = batch.latents
        noisy = sampling.noise_scaling(sigmas, noise.clone(), latents.clone()).double()
        # x0 = x - sigma output of noise and flow; of Cosmos (x - sigma output) / (1 + sigma).
        slope = sigmas.double() / (1 + sigmas.double() if name.startswith("cosmos") else 1)
        return Truth(twin, parameters, noisy, sigmas, batch.conds, latents.double(), slope,
                     trainer.patcher.model_options.get("transformer_options", {}))


def _add(module: torch.nn.Module, down: torch.Tensor, up: torch.Tensor, scale: float) -> None:
    weight, bias = module.weight, module.bias

    def changed() -> torch.Tensor:
        return weight + scale * (up @ down.flatten(1)).reshape(weight.shape)

    if weight.ndim == 2:
        module.forward = lambda x: F.linear(x, changed(), bias)
    else:
        convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.ndim]
        module.forward = lambda x: convolve(x, changed(), bias, module.stride, module.padding)
