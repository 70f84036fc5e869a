"""Low-rank adapters: `W x + scale * up (down x)`, also with the columns' lengths learned apart.

PEFT's layers do the same arithmetic (the parity tests compare), but wrap each module under another
name, which the host's patches and keys do not know, and keep cast weights in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ...errors import LikenessError
from ..frozen import layers as frozen
from ..recipes.adapters import LoRARecipe
from ..recipes.fields import Initialisation
from .layer import AdapterLayer, frozen_weight, rank_within, take
from .low_rank import low_rank, scaled
from .recomputed import changed

# How many rows of a product take as long as reading and writing a changed weight: measured.
_PASSES = 150
# The loader divides by a column's length plus this, in float32.
_EPSILON = torch.finfo(torch.float32).eps


class LoRALayer(AdapterLayer):
    """One adapter: down (rank, in, ...) random, up (out, rank) zero.

    Where the rank is large for the layer and the input long, the product `up down` is cheaper than
    the two thin ones, and such layers add it to W instead.

    Raises:
        LikenessError: the rank exceeds what the layer can hold.
    """

    def __init__(self, path: str, module: nn.Module, recipe: LoRARecipe,
                 generator: torch.Generator, device: torch.device) -> None:
        rank = rank_within(path, module, recipe)
        super().__init__(module, rank, recipe.rank_dropout)
        self.scale, self.plus_ratio = recipe.scale, recipe.plus_ratio
        outputs, inputs = self.shape[0], math.prod(self.shape[1:])
        down = first_factor(rank, inputs, recipe.initialisation, generator)
        self.down = nn.Parameter(down.reshape(rank, *self.shape[1:]).to(device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=device))
        self.materialise = 3 * rank * (inputs + outputs) >= inputs * outputs

    def difference(self, weight: torch.Tensor,
                   rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        return self._product(*(part.to(rounded_to).float() for part in (self.down, self.up)))

    def to_file(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        ones = (1,) * (len(self.shape) - 2)  # kohya stores a convolution's parts in 4 dimensions
        up = self.up.detach().reshape(*self.up.shape, *ones)
        return {"lora_down.weight": self.down.detach().to("cpu", dtype).contiguous(),
                "lora_up.weight": up.to("cpu", dtype).contiguous(),
                # The loader divides by the rank; half would round 0.3.
                "alpha": torch.tensor(self.scale * len(self.down))}

    def from_file(self, tensors: Mapping[str, torch.Tensor]) -> None:
        take({"lora_down.weight": self.down, "lora_up.weight": self.up}, tensors)

    def forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self._run(module, x, self.kept_of(self.up, 1))

    def rate_factor(self, name: str) -> float:
        return self.plus_ratio if name == "up" else 1.0

    def _adds_to_weight(self, module: nn.Module, x: torch.Tensor) -> bool:
        # In half precision the base has its own product anyway, and the thin ones cost less.
        if not self.materialise or x.dtype != torch.float32:
            return False
        # Beside the weight's gradient, which is a product with every row of x, the sum is formed
        # and taken apart: products with the rank's rows, and passes over memory worth that many.
        linear = frozen.is_linear(module)
        rows = x.numel() // x.shape[-1 if linear else 1]
        if not linear:
            rows //= math.prod(module.stride)
        outputs, inputs = self.shape[0], math.prod(self.shape[1:])
        rank = len(self.down)
        return 3 * rows * rank * (inputs + outputs) >= inputs * outputs * (
            rows + 4 * rank + _PASSES)

    def _product(self, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return (up @ down.flatten(1)).mul(self.scale).reshape(self.shape)

    def _run(self, module: nn.Module, x: torch.Tensor, up: torch.Tensor,
             columns: torch.Tensor | None = None) -> torch.Tensor:
        if not self._adds_to_weight(module, x):
            return low_rank(module, x, self.down, up, self.scale, columns)
        if columns is not None:
            x = scaled(x, columns, -1 if frozen.is_linear(module) else 1)
        return changed(module, x, self._product, self.down, up)


class DoRALayer(LoRALayer):
    """A low-rank adapter whose columns get a length of their own (arXiv 2402.09353).

    W' = m * V / ||V|| with V = W + scale * up down, the norm taken over everything that one input
    channel feeds, as in the paper. PEFT takes it over what feeds one output: the loader reads such
    files against the norm of W instead of V and gives other weights than were trained.

    Raises:
        LikenessError: the rank exceeds what the layer can hold, or the layer has one output.
    """

    additive = False

    def __init__(self, path: str, module: nn.Module, recipe: LoRARecipe,
                 generator: torch.Generator, device: torch.device) -> None:
        super().__init__(path, module, recipe, generator, device)
        if self.shape[0] == 1:
            raise LikenessError(f"DoRA cannot train layer `{path}`, which has one output; choose "
                                "a smaller `target`.")
        lengths = _column_lengths(frozen_weight(module, device))
        self.register_buffer("lengths", lengths, persistent=False)
        # The gain rather than the length: weight decay then pulls to the base and not to zero.
        self.magnitude = nn.Parameter(torch.zeros_like(lengths))

    def difference(self, weight: torch.Tensor,
                   rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        turned = weight + super().difference(weight, rounded_to).to(weight.device)
        factor = self._magnitudes().to(weight.device) / (_column_lengths(turned) + _EPSILON)
        return turned * factor.reshape(1, -1, *(1,) * (weight.ndim - 2)) - weight

    def to_file(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        # (1, in, ...) tells the loader of columns. Half would round the whole weight.
        sizes = (1, -1, *(1,) * (len(self.shape) - 2))
        return {**super().to_file(dtype),
                "dora_scale": self._magnitudes().detach().cpu().reshape(sizes).contiguous()}

    @torch.no_grad()
    def from_file(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().from_file(tensors)
        magnitudes = tensors["dora_scale"].reshape(self.magnitude.shape)
        self.magnitude.copy_(magnitudes.to(self.lengths) - (self.lengths + _EPSILON))

    def forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        up = self.kept_of(self.up, 1)
        columns = _ColumnFactors.apply(self.down, up, self._magnitudes(), self.lengths, self.scale,
                                       module, x)
        return self._run(module, x, up, columns)

    def _magnitudes(self) -> torch.Tensor:
        return self.lengths + _EPSILON + self.magnitude


def first_factor(rank: int, inputs: int, initialisation: Initialisation,
                 generator: torch.Generator) -> torch.Tensor:
    """What an adapter's down factor (rank, inputs) starts from."""
    down = torch.empty(rank, inputs)
    if initialisation is Initialisation.ORTHOGONAL:
        # Rows that share nothing (https://arxiv.org/abs/1312.6120), as T-LoRA starts from
        # (https://arxiv.org/abs/2507.05964), as long as those below are on average.
        return nn.init.orthogonal_(down, gain=3 ** -0.5, generator=generator)
    # Kaiming-uniform with a = sqrt(5), as PEFT and kohya do; random here and zero in `up`
    # trains better at large rates than the reverse (https://arxiv.org/abs/2406.08447).
    bound = inputs ** -0.5
    return down.uniform_(-bound, bound, generator=generator)


def _column_lengths(weight: torch.Tensor) -> torch.Tensor:
    """The norm of everything that each input channel of a weight (out, in, ...) feeds: (in,)."""
    return weight.transpose(0, 1).flatten(1).norm(dim=1)


class _ColumnFactors(torch.autograd.Function):
    """m / ||V|| by column without forming V, from ||W||^2 + 2 s <W, up down> + s^2 ||up down||^2.

    The weight is read once in each direction, for a product with `rank` columns.
    """

    @staticmethod
    def forward(ctx, down, up, magnitudes, lengths, scale, module, x):
        ctx.scale, ctx.module, ctx.like = scale, module, x.new_empty(0)
        weight, bias, stream = frozen.read_weight(module, x)
        cross = (up.to(weight.dtype).t() @ weight.flatten(1)).to(up.dtype)
        frozen.release(module, weight, bias, stream)
        flat = down.flatten(1)
        # Half of what the square of a column's length changes by, per row of `down`.
        slopes = scale * cross + scale ** 2 * ((up.t() @ up) @ flat)
        gained = flat * (slopes + scale * cross)
        squares = lengths.square() + gained.view(*down.shape[:2], -1).sum((0, 2))
        norms = squares.clamp_(min=0).sqrt_()
        factors = magnitudes / (norms + _EPSILON)
        ctx.save_for_backward(down, up, slopes, norms, factors)
        return factors

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        down, up, slopes, norms, factors = ctx.saved_tensors
        grad_magnitudes = grad / (norms + _EPSILON)
        # Of the squares; a column of zeros has no direction.
        inner = torch.where(norms > 0, -0.5 * grad_magnitudes * factors / norms, 0)
        weighted = (down.flatten(2) if down.ndim > 2 else down[..., None]) * inner[None, :, None]
        flat, weighted = down.flatten(1), weighted.flatten(1)
        spread = inner[:, None].expand(-1, flat.shape[1] // len(inner)).reshape(-1)
        weight, bias, stream = frozen.read_weight(ctx.module, ctx.like)
        turned = (weight.flatten(1) @ weighted.to(weight.dtype).t()).to(up.dtype)
        frozen.release(ctx.module, weight, bias, stream)
        grad_up = 2 * ctx.scale * (turned + ctx.scale * (up @ (weighted @ flat.t())))
        grad_down = (2 * slopes * spread).view(down.shape)
        return grad_down, grad_up, grad_magnitudes, None, None, None, None
