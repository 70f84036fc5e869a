"""What to tell a user whose run found no memory: what is kept, and how to take less."""

from __future__ import annotations

from .loop import Trainer
from .memory import MemoryPlan, cheapest_change
from .plan import free_bytes, plan_of


def make_plan(trainer: Trainer) -> MemoryPlan:
    """What a trainer's run will take on its compute device, part by part."""
    shapes = tuple(tuple(value.shape) for value in trainer.learner.parameters)
    return plan_of(trainer.base, trainer.recipe, [*trainer.samples, *trainer.class_samples], shapes,
                 trainer.text, trainer.identity)


def out_of_memory(trainer: Trainer, kept: str) -> str:
    """What to tell a user whose run found no memory, with the cheapest change that would help.

    Args:
        kept: what is not lost.
    """
    return f"Memory ran out at step {trainer.step + 1}; {kept}. {_less(trainer)}"


def out_of_memory_beside(trainer: Trainer, doing: str, kept: str) -> str:
    """The same of a run that found none before its steps or after them.

    Args:
        doing: what was being done.
        kept: what is not lost, and what queueing the same inputs again does.
    """
    return (f"Memory ran out while {doing}; {kept}. Close other programs or unload other models "
            f"and queue it again; if that does not help, train with less. {_less(trainer)}")


def _less(trainer: Trainer) -> str:
    plan = make_plan(trainer)
    # The estimate said it fits and it did not: what helps must be smaller than what was tried.
    return cheapest_change(plan, min(free_bytes(trainer.device), plan.total - 1))
