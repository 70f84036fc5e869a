"""A run's looks at itself: pictures, likeness, the best state, and when it is over."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...files import write_whole
from ...tensors import Conditioning
from ..export import checkpoint, lora
from ..export.keys import KeyStyle, layer_keys
from ..frozen.scope import Scope
from ..pictures.sampling import encode_and_unload
from ..steps.loop import Trainer
from ..steps.step import StepResult
from ..watch.divergence import Diverged, LossWatch
from ..watch.monitor import Look, judge_for, look
from ..watch.stopping import Decision, decide
from .job import Job
from .judges import judging

_QUARTERS = 4


class Watch:
    """Follows a run: takes the monitor's looks, keeps the best state, decides when it is over.

    Args:
        key: of what is learned; other runs of the name have pictures of their own.
        before: what `state` gave when the run was interrupted.
        peak: tells the most memory held on the card in this call; None where nobody counts it.

    Attributes:
        looks: all of them so far, in order.
    """

    def __init__(self, job: Job, trainer: Trainer, key: str,
                 before: Mapping[str, Any] | None = None,
                 peak: Callable[[], int | None] = lambda: None) -> None:
        before = before or {}
        self.job, self.trainer, self.monitor = job, trainer, job.monitor
        self.folder = job.work_folder / "looks" / f"{job.name}-{key[:8]}"
        self.looks = [Look.from_dict(plain, self.folder) for plain in before.get("looks", ())]
        self._best: Mapping[str, torch.Tensor] | None = before.get("best")
        self._sums = list(before.get("sums", [0.0] * _QUARTERS))
        self._counts = list(before.get("counts", [0] * _QUARTERS))
        self.history: list[dict[str, Any]] = list(before.get("history", ()))
        self._seconds: list[tuple[float, bool]] = []  # of this call's steps; identity asked
        self._clip = _LearnedClip(job, trainer)
        self._loss = LossWatch(**before.get("loss", {}))
        self._spent = float(before.get("seconds", 0.0))
        self._stepping = float(before.get("stepping", 0.0))  # seconds of all steps
        self._peak_before, self._peak = before.get("peak"), peak  # bytes
        self._started = time.monotonic()
        self._judge = None
        if self.monitor is not None and self.monitor.every > 0:
            self._judge = judge_for(job.subject, judging(job))
        self.decision = self._decide()

    @property
    def seconds(self) -> float:
        """Of the whole run so far, before an interruption too."""
        return self._spent + time.monotonic() - self._started

    @property
    def out_of_time(self) -> bool:
        """Whether the run's time limit has passed."""
        limit = 0.0 if self.monitor is None else self.monitor.rule.minutes
        return 0 < 60 * limit <= self.seconds

    @property
    def over(self) -> bool:
        """Whether the run ends before its last step."""
        return self.out_of_time or (self.decision is not None and self.decision.stop)

    @property
    def next_look(self) -> int:
        """The step after which the next look is due, or the last step."""
        if self._judge is None:
            return self.trainer.recipe.steps
        every = self.monitor.every
        return min(self.trainer.recipe.steps, (self.trainer.step // every + 1) * every)

    def record(self, result: StepResult) -> None:
        """Take note of a step's losses by noise level.

        Raises:
            Diverged: the photos' loss has grown so much that the model is lost.
        """
        for level, loss in zip(result.levels, result.sample_losses, strict=True):
            quarter = min(_QUARTERS - 1, int(level * _QUARTERS))
            self._sums[quarter] += loss
            self._counts[quarter] += 1
        self.history.append({"step": result.step, "loss": result.loss, "terms": result.terms,
                             "learning_rate": result.learning_rate,
                             "gradient_norm": result.gradient_norm})
        self._seconds.append((result.seconds, "identity" in result.terms))
        self._stepping += result.seconds
        self._loss.record(statistics.fmean(result.sample_losses))
        if self._loss.diverged:
            raise Diverged(f"The loss has grown to {self._loss.growth:.0f} times that of the first "
                           f"steps by step {result.step}, so the model is getting worse; lower the "
                           "learning rate")

    @property
    def cost(self) -> dict[str, Any]:
        """Seconds of all steps without looks, and the most memory held on the card meanwhile.

        Both count what came before an interruption too; the memory is None on a CPU.
        """
        known = [peak for peak in (self._peak_before, self._peak()) if peak is not None]
        return {"training_seconds": round(self._stepping, 3),
                "peak_bytes": max(known, default=None)}

    @property
    def seconds_per_step(self) -> dict[str, float | None]:
        """Medians of this call's steps: all of them, and those with and without a recogniser."""
        def median(values: list[float]) -> float | None:
            return round(statistics.median(values), 4) if values else None

        return {"all": median([seconds for seconds, _ in self._seconds]),
                "with_identity": median([seconds for seconds, asked in self._seconds if asked]),
                "without_identity": median([seconds for seconds, asked in self._seconds
                                            if not asked])}

    def write_history(self, key: str) -> Path:
        """Write plan and cost, every step's loss by term, rate and gradient norm, and every look.

        Raises:
            LikenessError: the folder cannot be written.
        """
        path = history_path(self.job, key)
        told = {"plan": self.trainer.plan.as_dict(), **self.cost, "steps": self.history,
                "looks": [taken.as_dict() for taken in self.looks]}
        write_whole(path, lambda partial: partial.write_text(json.dumps(told)))
        return path

    @property
    def quarters(self) -> list[float | None]:
        """Mean loss by quarter of the noise levels, from clean to noise; None where none was."""
        return [round(total / count, 6) if count else None
                for total, count in zip(self._sums, self._counts, strict=True)]

    def look(self, on_picture: Callable[[int, np.ndarray], None]) -> Look | None:
        """Take a look if one is due after the last finished step, and decide."""
        trainer = self.trainer
        seen = bool(self.looks) and self.looks[-1].step == trainer.step
        if self._judge is None or seen or trainer.step == 0 or not (
                self.monitor.due(trainer.step, trainer.recipe.steps) or self.out_of_time):
            return None
        self._clip.know({*self.monitor.texts(self.job.subject), self.monitor.negative})
        with trainer.learner.evaluated():
            taken = look(self._model(), self._clip, self.job.vae,
                         self.job.subject, self.monitor, trainer.step, self._judge,
                         self._training_size(), on_picture)
            self.looks.append(taken.saved(self.folder))
            self.decision = self._decide()
            if self.decision.best_step == trainer.step:
                self._best = trainer.learner.tensors()
        return self.looks[-1]

    @property
    def kept_step(self) -> int:
        """The step whose state is the result."""
        best = None if self.decision is None else self.decision.best_step
        return self.trainer.step if best is None or self._best is None else best

    def settle(self) -> str:
        """Put the best state in place as the result; return why the run ended early, if it did."""
        if self.decision is not None and self._best is not None:
            self.trainer.learner.settle(self._best)
        best = None if self.decision is None else self.decision.best_step
        early = self.trainer.step < self.trainer.recipe.steps
        if best is None or (best == self.trainer.step and not early):
            return self._time_is_over() if early else ""
        kept = f" The state of step {best} of {self.trainer.step} is kept."
        return (self.decision.reason if self.decision.stop or not early
                else self._time_is_over()) + kept

    def told(self) -> dict[str, Any]:
        """What the run's files tell of it; settles the result."""
        ended = self.settle()
        return {"losses": self.trainer.losses, "ended": ended, "kept_step": self.kept_step,
                "looks": [taken.summary() for taken in self.looks],
                "loss_by_noise": self.quarters}

    def state(self) -> dict[str, Any]:
        """What a run needs to go on, as plain values and tensors."""
        kept = {} if self._best is None else {"best": dict(self._best)}
        return {"looks": [taken.as_dict() for taken in self.looks], "sums": self._sums,
                "history": self.history,
                "counts": self._counts, "seconds": self.seconds,
                "stepping": self._stepping, "peak": self.cost["peak_bytes"],
                "loss": {"first": self._loss.first, "last": self._loss.last}, **kept}

    def _time_is_over(self) -> str:
        return f"the time limit of {self.monitor.rule.minutes:g} minutes is over."

    def _decide(self) -> Decision | None:
        if self._judge is None:
            return None
        return decide([taken.mark for taken in self.looks], self.monitor.rule, self.seconds,
                      self._judge.measured)

    def _model(self) -> Any:
        """The job's MODEL with what has been learned so far as ordinary patches."""
        adapters = self.trainer.adapters
        if adapters is None:
            return self.job.model
        if self.trainer.recipe.method == "dreambooth":
            return checkpoint.tuned(self.job.model, adapters)
        names = layer_keys(self.trainer.patcher, adapters.layers, KeyStyle.PLAIN)
        return lora.apply_lora(self.job.model,
                               lora.lora_tensors(adapters, names, torch.float32), 1.0)

    def _training_size(self) -> tuple[int, int]:
        return max((sample.item.bucket for sample in self.trainer.samples),
                   key=lambda size: size[0] * size[1])


def history_path(job: Job, key: str) -> Path:
    """Where a run's steps and looks are written."""
    return job.work_folder.parent / "runs" / f"{job.name}-{key[:8]}.json"


def known_cost(job: Job, key: str) -> dict[str, Any]:
    """The cost of a finished run as its history tells it; both None where that is gone."""
    try:
        told = json.loads(history_path(job, key).read_text("utf-8"))
        return {name: told[name] for name in ("training_seconds", "peak_bytes")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"training_seconds": None, "peak_bytes": None}


class _LearnedClip:
    """Speaks like the host's CLIP, and encodes with what the text encoders have learned so far."""

    def __init__(self, job: Job, trainer: Trainer) -> None:
        self.clip = job.clip
        self.known: dict[str, Conditioning] = {}  # of encoders that learn nothing
        self.encoders = None if trainer.text is None else trainer.text.encoders

    def know(self, texts: Collection[str]) -> None:
        """Encode what no encoder learns and is not known yet, and take the encoder off the device.

        Large ones take seconds to load, so all texts of a look are encoded at once.

        Raises:
            LikenessError: there is no text encoder.
        """
        wanted = sorted(set(texts) - self.known.keys())
        if self.encoders is None and wanted:
            self.known |= encode_and_unload(self.clip, wanted)

    def tokenize(self, text: str) -> Any:
        """What `encode_from_tokens_scheduled` takes: the text itself."""
        return text

    def encode_from_tokens_scheduled(self, tokens: Any) -> Conditioning:
        """The encoding of a text."""
        if self.encoders is None:
            self.know({tokens})
            return self.known[tokens]
        self.encoders.prepare()
        with Scope() as scope:
            self.encoders.attach(scope)
            with torch.inference_mode(False), torch.no_grad():
                return self.encoders.encode(tokens, with_trigger=False)
