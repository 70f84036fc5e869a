"""Who judges a run: nobody alone who taught it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from likeness.nodes.faces.recognise.backends import BOTH
from likeness.nodes.training.run.judges import disagreement, judging


def job(identity_weight: float, backend: str) -> SimpleNamespace:
    return SimpleNamespace(recipe=SimpleNamespace(identity_weight=identity_weight),
                           monitor=SimpleNamespace(backend=backend))


@pytest.mark.parametrize("weight, named, who", [
    (0.0, "dlib", "dlib"), (0.1, "dlib", BOTH), (0.1, "mobilefacenet", "mobilefacenet"),
    (0.1, BOTH, BOTH), (0.1, "buffalo_l", "buffalo_l")])
def test_the_recogniser_that_teaches_does_not_judge_alone(weight, named, who):
    assert judging(job(weight, named)) == who


def look(step: int, **judges: float) -> dict:
    return {"step": step, "judges": judges}


def test_steps_that_the_judges_would_choose_are_told_where_they_differ():
    looks = [look(0, dlib=0.9, mobilefacenet=0.9), look(100, dlib=0.5, mobilefacenet=0.4),
             look(200, dlib=0.6, mobilefacenet=0.3), look(300, dlib=0.6, mobilefacenet=0.2)]
    told = disagreement(looks)
    assert "dlib step 200" in told and "mobilefacenet step 100" in told


def test_judges_that_agree_and_single_judges_are_not_mentioned():
    assert disagreement([look(100, dlib=0.5, mobilefacenet=0.4)]) == ""
    assert disagreement([{"step": 100, "judges": {}}, {"step": 200}]) == ""
    assert disagreement([]) == ""
