"""What a step minimises: the photos' own error and the terms that keep the rest as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..recipes.base import Recipe
from ..samples.data import Batch
from . import objectives

# Estimates x0 from noisy latents (B, C, ...), sigmas (B,) and conditionings.
Predict = Callable[[torch.Tensor, torch.Tensor, Mapping[str, Any]], torch.Tensor]
# The recogniser's distance for each sample's x0 estimate, (B,); None where noise is too high.
IdentityDistance = Callable[[torch.Tensor, torch.Tensor, Batch], torch.Tensor | None]


@dataclass(frozen=True, eq=False)
class Objective:
    """A recipe's loss on one model.

    Attributes:
        predict: the model as it is being trained.
        predict_before: the model without what it has learned; without gradient.
        identity: asked where the recipe gives it a weight.
    """

    recipe: Recipe
    sampling: Any
    predict: Predict
    predict_before: Predict
    identity: IdentityDistance | None = None

    def photo_terms(self, batch: Batch, sigmas: torch.Tensor, noise: torch.Tensor,
                    plain_conds: Mapping[str, Any] | None = None,
                    class_conds: Mapping[str, Any] | None = None,
                    class_conds_before: Mapping[str, Any] | None = None,
                    ) -> dict[str, torch.Tensor]:
        """Each sample's loss by term, (B,) each and weighted, for photos of the person.

        Args:
            noise: (B, C, ...) standard normal, with any offset.
            plain_conds: of the captions, from the text encoders as they were.
            class_conds, class_conds_before: of the captions with the class word alone, from the
                text encoders as they are and as they were.
        """
        recipe = self.recipe
        noisy = self.sampling.noise_scaling(sigmas, noise, batch.latents)
        estimate = self.predict(noisy, sigmas, batch.conds)
        terms = {"photo": self._photo_cost(estimate, batch, sigmas)}
        if recipe.outside_weight > 0:
            before = self.predict_before(noisy, sigmas, plain_conds or batch.conds)
            drift = self._drift(estimate, before, sigmas)
            terms["outside"] = recipe.outside_weight * objectives.masked_mean(
                drift, 1 - batch.masks)
        if recipe.class_word_weight > 0 and class_conds is not None:
            before = self.predict_before(noisy, sigmas, class_conds_before)
            drift = self._drift(self.predict(noisy, sigmas, class_conds), before, sigmas)
            terms["class word"] = recipe.class_word_weight * drift.flatten(1).mean(1)
        if self.identity is not None and recipe.identity_weight > 0:
            distance = self.identity(estimate, sigmas, batch)
            if distance is not None:
                terms["identity"] = recipe.identity_weight * distance
        return terms

    def class_terms(self, batch: Batch, sigmas: torch.Tensor,
                    noise: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each sample's weighted loss for photos of the class (arXiv 2208.12242, section 3.2).

        Without a mask: what the class looks like is to stay, all of the picture.
        """
        noisy = self.sampling.noise_scaling(sigmas, noise, batch.latents)
        estimate = self.predict(noisy, sigmas, batch.conds)
        cost = self._cost(estimate, batch.latents, sigmas, torch.ones_like(batch.masks))
        return {"class": self.recipe.class_weight * cost}

    def photo_loss(self, batch: Batch, sigmas: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Each photo's own loss, (B,)."""
        noisy = self.sampling.noise_scaling(sigmas, noise, batch.latents)
        return self._photo_cost(self.predict(noisy, sigmas, batch.conds), batch, sigmas)

    def photo_loss_before(self, batch: Batch, sigmas: torch.Tensor,
                          noise: torch.Tensor) -> torch.Tensor:
        """Each photo's own loss without what the model has learned, (B,)."""
        noisy = self.sampling.noise_scaling(sigmas, noise, batch.latents)
        return self._photo_cost(self.predict_before(noisy, sigmas, batch.conds), batch, sigmas)

    def nothing_loss(self, batch: Batch, sigmas: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Each photo's own loss where the network's output is zero, (B,): that of its target."""
        noisy = self.sampling.noise_scaling(sigmas, noise, batch.latents)
        estimate = self.sampling.calculate_denoised(sigmas, torch.zeros_like(noisy), noisy)
        return self._photo_cost(estimate, batch, sigmas)

    def _photo_cost(self, estimate: torch.Tensor, batch: Batch,
                    sigmas: torch.Tensor) -> torch.Tensor:
        weight = objectives.face_weight(batch.masks, self.recipe.background)
        return self._cost(estimate, batch.latents, sigmas, weight)

    def _cost(self, estimate: torch.Tensor, latents: torch.Tensor, sigmas: torch.Tensor,
              weight: torch.Tensor) -> torch.Tensor:
        error = objectives.residual(self.sampling, sigmas, estimate, latents)
        each = objectives.element_loss(error, self.recipe, self.sampling, sigmas)
        level = objectives.weighting(self.sampling, sigmas, self.recipe, each.ndim)
        return objectives.masked_mean(each * level, weight)

    def _drift(self, estimate: torch.Tensor, before: torch.Tensor,
               sigmas: torch.Tensor) -> torch.Tensor:
        return objectives.residual(self.sampling, sigmas, estimate, before).square()
