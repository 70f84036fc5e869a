"""When a run has made its model worse, though its loss still is a number.

Two rules, since neither sees all. The losses of the steps themselves cost nothing, but belong to
other photos and noise levels each time, so only a great growth of their mean says anything. The
other rule asks the same few photos, noise levels and noise again and again, and compares with what
the model loses there without what it has learned: what is left then is no chance.

Neither sees a word that has been wrecked: a caption moves these losses by hundredths, learned at
a thousandfold rate or at a usual one. What holds a word is the penalty on its length.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...errors import LikenessError
from ..samples.data import collate, main_captions, seeded
from ..steps.loop import Trainer

logger = logging.getLogger("likeness")

# One step's loss says little, since noise levels differ between steps. Means of so many steps
# differ by a factor of two or three by chance; a model that predicts nothing but noise is beyond
# eight. The first steps are few because what learns starts as the model itself and may be lost
# within twenty.
_FIRST, _LAST, _FACTOR = 8, 16, 8.0

# Noise levels that are asked, as places on the model's schedule. At the ends a model that is lost
# loses hardly more than one that is not: nobody can tell faint noise, and pure noise is copied.
_PLACES = (0.2, 0.4, 0.6, 0.8)
# A model that knows what pictures look like loses a tenth to a third of what predicting nothing
# loses, and one that is lost about as much as that or more. On its own photos a run that learns
# never rises by more than a hundredth; a quarter is far from both.
_MOST_HARM = 0.25
# Often in the first steps, since a rate far too high is told by these; then now and then.
_EARLY, _EVERY = (1, 2, 4, 8, 16, 32), 50


class Diverged(LikenessError):
    """A run has made its model worse than it was; its present state is not worth keeping."""


class LossWatch:
    """Compares the photos' own loss of the last steps with that of the first.

    Args:
        first, last: of the run so far; see the attributes.

    Attributes:
        first: losses of the run's first steps.
        last: losses of its last steps.
    """

    def __init__(self, first: Sequence[float] = (), last: Sequence[float] = ()) -> None:
        self.first, self.last = list(first), list(last)

    def record(self, loss: float) -> None:
        """Take note of a step's loss."""
        if len(self.first) < _FIRST:
            self.first.append(loss)
        else:
            self.last = [*self.last, loss][-_LAST:]

    @property
    def growth(self) -> float:
        """The last steps' mean loss as a multiple of the first steps'; 1 before it can be told."""
        start = statistics.fmean(self.first or [0.0])
        return statistics.fmean(self.last) / start if len(self.last) == _LAST and start > 0 else 1.0

    @property
    def diverged(self) -> bool:
        """Whether training has made the model worse beyond chance."""
        return self.growth > _FACTOR


@dataclass(frozen=True)
class Harm:
    """What a run has done to its model at one photo and noise level."""

    photo: str
    sigma: float
    loss: float
    before: float  # loss of the model without what it has learned
    nothing: float  # loss of a network whose output is zero

    @property
    def share(self) -> float:
        """The loss that was added, as a part of what predicting nothing loses; below 0: learned.

        A network that has not been trained may lose more than that from the start; its own loss
        is the measure then.
        """
        share = (self.loss - self.before) / max(self.nothing, self.before, 1e-12)
        return share if math.isfinite(share) else math.inf


class HarmWatch:
    """Measures on fixed photos, noise levels and noise whether a run makes its model worse.

    Args:
        trainer: its losses are asked, and nothing of it is changed: a run that is watched learns
            what one that is not watched learns.
        measured: whether the model as it stands was measured before it was stored.
    """

    def __init__(self, trainer: Trainer, measured: bool = True) -> None:
        self.trainer = trainer
        self._measured, self._sound = trainer.step if measured else None, True  # the last time
        self._known: dict[float, tuple[float, float]] = {}  # place -> losses before, of nothing

    def due(self, step: int) -> bool:
        """Whether to measure after so many finished steps."""
        return step in _EARLY or step % _EVERY == 0

    def check(self) -> None:
        """Measure; between two steps, while the model is attached.

        Raises:
            Diverged: the model has become much worse; the text names the worst photo.
        """
        found = self.measure()
        mean = statistics.fmean(harm.share for harm in found)
        self._measured, self._sound = self.trainer.step, mean <= _MOST_HARM
        if self._sound:
            return
        worst = max(found, key=lambda harm: harm.share)
        now = f"{worst.loss:.3g}" if math.isfinite(worst.loss) else "no number"
        raise Diverged(
            f"Training has made the model worse by step {self.trainer.step} (photo {worst.photo}; "
            f"noise level {worst.sigma:.3g}: its loss is {now}, was {worst.before:.3g} before "
            f"training, and predicting nothing loses {worst.nothing:.3g}); lower the learning rate")

    @property
    def known(self) -> bool:
        """Whether the model was measured after the last finished step."""
        return self._measured == self.trainer.step

    def passes(self) -> bool:
        """Whether the model as it stands may be kept; measures only where that is not known."""
        if not self.known:
            try:
                self.check()
            except Diverged as err:
                logger.warning("%s; this state is not kept.", err)
        return self._sound

    def measure(self) -> list[Harm]:
        """Losses at every fixed photo and noise level, as they are now."""
        trainer = self.trainer
        with torch.inference_mode(False), torch.no_grad():
            trainer.learner.keep_all()
            return [self._measure(number, place) for number, place in enumerate(_PLACES)]

    def _measure(self, number: int, place: float) -> Harm:
        trainer = self.trainer
        sample = trainer.samples[number * len(trainer.samples) // len(_PLACES)]
        table = trainer.sampling.sigmas
        sigmas = table[int(place * (len(table) - 1))].reshape(1).to(trainer.device, torch.float32)
        noise = torch.randn((1, *sample.latent.shape), generator=seeded(0, "harm", number))
        given = {"sigmas": sigmas, "noise": noise.to(trainer.device)}
        captions = main_captions([sample])
        if place not in self._known:
            plain = collate([sample], captions, trainer.device)
            self._known[place] = (
                float(trainer.objective.photo_loss_before(plain, **given)),
                float(trainer.objective.nothing_loss(plain, **given)))
        loss = float(trainer.objective.photo_loss(trainer.live_batch([sample], captions), **given))
        return Harm(sample.item.photo, float(sigmas), loss, *self._known[place])
