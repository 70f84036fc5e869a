"""Adapter gradients of every architecture against witnesses that know nothing of training.

Each model is made, and each trainer built and attached, under inference mode, as the executor does.
"""

from __future__ import annotations

import math
import operator

import comfy.rmsnorm
import pytest
import torch
import training_models
from likeness.nodes.training.adapters import attach
from likeness.nodes.training.frozen import layers as frozen
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import collate, main_captions
from likeness.nodes.training.steps.loop import Trainer
from out_of_place import Truth, make_truth
from torch.utils.checkpoint import checkpoint

TOLERANCE = 5e-5
# Networks that add to what autograd may have saved, some of them on newer hosts alone.
IN_PLACE = {"flux", "flux2", "chroma", "omnigen2", "boogu", "krea2"}
# Leaves frozen layers between the adapted ones; with all layers adapted there are none.
BETWEEN = "attention"
CHECKPOINTING = pytest.mark.parametrize("checkpointing", [False, True],
                                        ids=["plain", "checkpointed"])


class Case:
    """A trainer with one batch, noise and noise levels."""

    def __init__(self, name: str, folder, checkpointing: bool = False, dtype=torch.float32,
                 compute=None, options=None, target: str = "all linear") -> None:
        self.name = name
        generator = torch.Generator().manual_seed(7)
        with torch.inference_mode():
            model = training_models.make_model(name, dtype=dtype, compute=compute)
            training_set = training_models.make_training_set(folder, name, ((8, 8), (8, 8)))
            recipe = LoRARecipe(steps=2, rank=4, alpha=8.0, target=target, background=1.0,
                                weighting="none", gradient_checkpointing=checkpointing)
            self.trainer = Trainer(model, training_set, recipe, seed=3)
            self.trainer.patcher.model_options["transformer_options"] = options or {}
        with torch.inference_mode(False), torch.no_grad():
            for layer in self.trainer.adapters.layers.values():
                layer.up.normal_(0.0, 0.02, generator=generator)  # zero hides `down`'s gradient
            samples = self.trainer.samples
            self.batch = collate(samples, main_captions(samples), self.trainer.device)
            self.noise = torch.randn(self.batch.latents.shape, generator=generator)
            self.sigmas = torch.tensor([0.31, 0.84])
            if name in ("sd15", "sdxl"):
                self.sigmas = self.trainer.base.model_sampling.sigmas[[187, 731]].clone()

    def loss(self) -> torch.Tensor:
        """The trainer's loss; the trainer must be attached."""
        with torch.inference_mode(False), torch.enable_grad():
            return self.trainer.loss(self.batch, self.sigmas, self.noise)

    def gradients(self) -> tuple[float, dict[str, torch.Tensor]]:
        """The trainer's loss and the gradient of each adapter's values."""
        with torch.inference_mode(), self.trainer.attached():
            loss = self.loss()
            with torch.inference_mode(False):
                loss.backward()
        found = {}
        for path, layer in self.trainer.adapters.layers.items():
            for part in ("down", "up"):
                value = getattr(layer, part)
                found[f"{path}.{part}"] = (torch.zeros_like(value) if value.grad is None
                                           else value.grad).double()
        return loss.item(), found

    def truth(self) -> Truth:
        """The witness, with the trainer's weights as they are stored."""
        return make_truth(self.name, self.trainer, self.batch, self.sigmas, self.noise)


def _error(ours: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of whole gradients over the norm of the true one."""
    assert ours.keys() == truth.keys()
    whole = math.sqrt(sum(value.square().sum().item() for value in truth.values()))
    apart = math.sqrt(sum((ours[name] - value).square().sum().item()
                          for name, value in truth.items()))
    assert whole > 0
    return apart / whole


def _assert_equal(ours: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> None:
    assert _error(ours, truth) < TOLERANCE
    whole = math.sqrt(sum(value.square().sum().item() for value in truth.values()))
    for name, true in truth.items():
        # What is added before a norm over single channels cancels: both are only rounding.
        assert (ours[name] - true).norm() < 2 * TOLERANCE * true.norm() + 1e-6 * whole, name


@CHECKPOINTING
@pytest.mark.parametrize("name", training_models.NETWORKS)
def test_gradients_equal_plain_autograd_out_of_place(name, checkpointing, tmp_path):
    case = Case(name, tmp_path, checkpointing)
    loss, ours = case.gradients()
    truth = case.truth()
    _assert_equal(ours, truth.gradients)
    assert truth.replaced == 0 or name in IN_PLACE
    assert truth.replaced or name not in ("flux", "flux2", "chroma")
    assert loss == pytest.approx(truth.loss(out_of_place=True).item(), rel=TOLERANCE)


@pytest.mark.parametrize("name", training_models.NETWORKS)
def test_gradients_equal_the_slope_of_the_hosts_own_forward(name, tmp_path):
    case = Case(name, tmp_path, checkpointing=True, target=BETWEEN)
    _, ours = case.gradients()
    truth = case.truth()
    whole = math.sqrt(sum(value.square().sum().item() for value in ours.values()))
    for direction in truth.directions(2):
        slope = truth.slope(direction)
        along = sum((ours[name] * part).sum().item() for name, part in direction.items())
        plain = sum((truth.gradients[name] * part).sum().item()
                    for name, part in direction.items())
        length = math.sqrt(sum(part.square().sum().item() for part in direction.values()))
        size = sum(value.numel() for value in ours.values())
        assert plain == pytest.approx(slope, rel=1e-6)
        # A random direction meets 1 / sqrt(size) of the gradient; so much of its error it sees.
        assert abs(along - slope) < 3 * TOLERANCE * whole * length / math.sqrt(size)


@pytest.mark.parametrize("name", training_models.NETWORKS)
def test_gradients_through_frozen_layers_equal_plain_autograd(name, tmp_path):
    case = Case(name, tmp_path, target=BETWEEN)
    _assert_equal(case.gradients()[1], case.truth().gradients)


@CHECKPOINTING
@pytest.mark.parametrize("name", ["sd15", "wan"])
def test_gradients_of_convolutions_equal_plain_autograd(name, checkpointing, tmp_path):
    case = Case(name, tmp_path, checkpointing, target="all linear and convolutions")
    kernels = {layer.shape[2:] for layer in case.trainer.adapters.layers.values()}
    assert ((3, 3) if name == "sd15" else (1, 2, 2)) in kernels
    _assert_equal(case.gradients()[1], case.truth().gradients)


@pytest.mark.parametrize("name", ["flux", "chroma"])
def test_in_place_residuals_need_the_copies_that_norms_make(name, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "norm_on_copy",
                        lambda module: type(module).forward.__get__(module))
    with pytest.raises(RuntimeError, match="inplace operation"):
        Case(name, tmp_path).gradients()
    case = Case(name, tmp_path, checkpointing=True)
    _, unnoticed = case.gradients()  # autograd's check of versions does not see it here
    assert _error(unnoticed, case.truth().gradients) > 1e-3


def test_in_place_residuals_need_the_copies_that_checkpoints_make(tmp_path, monkeypatch):
    def without_copies(original):
        return lambda *args, **kwargs: checkpoint(lambda: original(*args, **kwargs),
                                                  use_reentrant=False)

    monkeypatch.setattr(frozen, "checkpointed", without_copies)
    case = Case("flux", tmp_path, checkpointing=True)
    _, unnoticed = case.gradients()
    assert _error(unnoticed, case.truth().gradients) > 1e-2


@pytest.mark.parametrize("name", training_models.NETWORKS)
def test_weights_born_under_inference_mode_train(name, tmp_path):
    case = Case(name, tmp_path)
    weights = list(case.trainer.base.diffusion_model.parameters())
    assert weights and all(weight.is_inference() for weight in weights)
    with torch.inference_mode(), case.trainer.attached():
        loss = case.loss()
        assert loss.requires_grad and not loss.is_inference()
    after = case.trainer.base.diffusion_model.parameters()
    assert all(now is before for now, before in zip(after, weights, strict=True))


@pytest.mark.parametrize("name", ["flux", "z_image", "wan"])
def test_weights_born_under_inference_mode_need_their_copies(name, tmp_path, monkeypatch):
    monkeypatch.setattr("likeness.nodes.training.frozen.scope.Scope.borrow_small_tensors",
                        lambda self, root, large: None)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        Case(name, tmp_path).gradients()


@pytest.mark.parametrize("name", training_models.NETWORKS)
def test_every_norm_of_the_network_saves_its_own_input(name, tmp_path, monkeypatch):
    made = []

    def recorded(module):
        made.append(module)
        return original(module)

    original = frozen.norm_on_copy
    monkeypatch.setattr(attach.frozen, "norm_on_copy", recorded)
    case = Case(name, tmp_path)
    functional = torch.nn.functional
    normalising = [(functional, "layer_norm"), (functional, "group_norm"),
                   (functional, "rms_norm")]
    if hasattr(comfy.rmsnorm, "rms_norm_torch"):  # older hosts hold torch's function themselves
        normalising.append((comfy.rmsnorm, "rms_norm_torch"))
    with torch.inference_mode(), case.trainer.attached():
        seen = []
        with monkeypatch.context() as patch:
            for place, function in normalising:
                run = getattr(place, function)
                patch.setattr(place, function, lambda x, *a, run=run, **k: seen.append(
                    (x, x._version)) or run(x, *a, **k))
            case.loss()
    assert made and seen
    seen = [(x if x._base is None else x._base, x, before) for x, before in seen if x.requires_grad]
    # A clone has no other owner: nothing in the network can write into it.
    cloned = [type(base.grad_fn).__name__ == "CloneBackward0" for base, _, _ in seen]
    # Queries and keys by head are no copies, so no network may write into them.
    by_head = [x.ndim == 4 and x._version == before for _, x, before in seen]
    assert any(cloned) and all(map(operator.or_, cloned, by_head))


def _numbered(out: torch.Tensor, options: dict) -> torch.Tensor:
    """A patch whose strength belongs to the block that runs it."""
    return out * (1 + 0.1 * options["block"][1])


OPTIONS = {"patches": {"attn1_output_patch": [_numbered]}}


def test_a_checkpoints_second_run_sees_the_options_of_the_first(tmp_path):
    case = Case("sd15", tmp_path, checkpointing=True, options=OPTIONS)
    plain = Case("sd15", tmp_path, checkpointing=True)
    _, ours = case.gradients()
    truth = case.truth().gradients
    _assert_equal(ours, truth)
    assert _error(plain.gradients()[1], truth) > 1e-2  # the patch did something


def test_a_checkpoint_that_shares_its_options_would_be_wrong(tmp_path, monkeypatch):
    def shared(original):
        return lambda *args, **kwargs: checkpoint(
            lambda *inner: original(*(value.clone() if isinstance(value, torch.Tensor) else value
                                      for value in inner), **kwargs), *args, use_reentrant=False)

    monkeypatch.setattr(frozen, "checkpointed", shared)
    case = Case("sd15", tmp_path, checkpointing=True, options=OPTIONS)
    _, ours = case.gradients()
    assert _error(ours, case.truth().gradients) > 1e-3


BASES = {  # stored, computed in
    "float32": (torch.float32, None), "float16": (torch.float16, torch.float32),
    "bfloat16 as float32": (torch.bfloat16, torch.float32),
    "float8 as float32": (torch.float8_e4m3fn, torch.float32)}


@pytest.mark.parametrize("base", ["bfloat16 as float32", "float8 as float32"])
@pytest.mark.parametrize("name", training_models.NETWORKS)
def test_gradients_over_cast_weights_equal_those_over_the_dense_ones(name, base, tmp_path):
    dtype, compute = BASES[base]
    case = Case(name, tmp_path, True, dtype, compute, target=BETWEEN)
    _, ours = case.gradients()
    assert {value.dtype for value in case.trainer.base.diffusion_model.parameters()} >= {dtype}
    assert _error(ours, case.truth().gradients) < TOLERANCE


def _kept(run) -> tuple[int, list[torch.Tensor]]:
    """Bytes that autograd keeps for the backward pass, each storage once, and the tensors.

    No backward pass may follow: a graph whose hooks give the tensors themselves back hangs in a
    circle that no collector sees, and is never freed.
    """
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda _: pytest.fail("a backward pass")):
        loss = run()
    assert loss.requires_grad
    return sum(value.untyped_storage().nbytes() for value in kept.values()), list(kept.values())


def _fingerprint(tensor: torch.Tensor) -> tuple[int, float, float]:
    """The same for a tensor, its views, transposes and casts that lose nothing."""
    values = tensor.double().flatten()
    return values.numel(), round(values.sum().item(), 6), round(values.square().sum().item(), 6)


@pytest.mark.parametrize("base", ["float32", "bfloat16", "bfloat16 as float32",
                                  "float8 as float32", "float8 as bfloat16"])
@pytest.mark.parametrize("name", training_models.NETWORKS)
def test_the_graph_keeps_neither_weights_nor_casts_of_frozen_layers(name, base, tmp_path):
    stored, _, computed = base.partition(" as ")
    dtype = {"float8": torch.float8_e4m3fn}.get(stored) or getattr(torch, stored)
    compute = getattr(torch, computed) if computed else None
    case = Case(name, tmp_path, dtype=dtype, compute=compute, target=BETWEEN)
    with torch.inference_mode(), case.trainer.attached():
        _, kept = _kept(case.loss)
        large = [module.weight for module in case.trainer.base.diffusion_model.modules()
                 if frozen.is_linear(module) or frozen.is_conv(module)]
        storages = {weight.untyped_storage().data_ptr() for weight in large}
        casts = {_fingerprint(weight.to(case.trainer.dtype)) for weight in large}
        assert not [value.shape for value in kept
                    if value.untyped_storage().data_ptr() in storages]
        assert not [value.shape for value in kept if _fingerprint(value) in casts]


@pytest.mark.parametrize("name", training_models.NETWORKS)
def test_the_graph_is_as_small_over_stored_formats_as_over_float32(name, tmp_path):
    sizes = {}
    for base, (dtype, compute) in BASES.items():
        case = Case(name, tmp_path, dtype=dtype, compute=compute, target=BETWEEN)
        with torch.inference_mode(), case.trainer.attached():
            sizes[base], _ = _kept(case.loss)
    assert len(set(sizes.values())) == 1
    truth, _ = _kept(lambda: Case(name, tmp_path, target=BETWEEN).truth().loss(out_of_place=True))
    # Plain autograd, in double precision, keeps weights beside the same activations.
    assert truth > 2 * 1.2 * sizes["float32"]
