"""Copy-paste by its published formula, the same for a training run's looks and for scores."""

from __future__ import annotations

import numpy as np

from .embed import split_parts


def copy_paste(generated: np.ndarray, targets: np.ndarray, reference: np.ndarray,
               backend: str = "dlib") -> float:
    """MultiID-Bench's copy-paste measure, averaged over the targets (T, D) and the judges.

    (angle(g, t) - angle(g, r)) / angle(t, r), angles being those between two embeddings, with g the
    generated face, t another real photo and r the reference; 0 where t and r are one
    (WithAnyone, arXiv 2510.14975). Above 0 the picture is nearer to the reference than to what the
    person looks like elsewhere; 1 is the reference itself.
    """
    rows = (split_parts(part, backend) for part in (generated, targets, reference))
    return float(np.mean([_single(*own) for own in zip(*rows, strict=True)]))


def _single(generated: np.ndarray, targets: np.ndarray, reference: np.ndarray) -> float:
    values = []
    for target in targets:
        apart = _angle(target, reference)
        values.append(0.0 if apart < 1e-6 else (
            _angle(generated, target) - _angle(generated, reference)) / apart)
    return float(np.mean(values))


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """The angle of two vectors, as exact for alike ones as for others.

    The arccos of their cosine is not: near 1 a cosine that is rounded in its seventh digit, as it
    is otherwise on every processor, gives 0.0005 instead of 0. Kahan, "How futile are mindless
    assessments of roundoff in floating-point computation?", 2006, section 12.
    """
    a, b = (row.astype(np.float64) for row in (a, b))
    a, b = (row / max(float(np.linalg.norm(row)), 1e-12) for row in (a, b))
    return 2 * float(np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))
