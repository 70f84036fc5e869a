"""Who is in the photos: faces grouped by person, and the person that most photos show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...quality.look import Seen
from ...quality.rules import Rules

_NARROW = 0.7  # of the limit of closed eyes; 99 of 100 portraits have up to this
_AT_ONCE = 2000  # faces compared pairwise; more are joined to the groups that these form


@dataclass(frozen=True)
class Pick:
    """Which face of a photo stands for it, and who it is."""

    face: int = 0  # place in `Seen.faces`
    person: int | None = None  # 1 is on the most photos; None: the face says nothing
    distance: float | None = None  # to the centre of the majority's other photos
    slack: float = 0.0  # by how much further than others it may lie: its eyes are shut


@dataclass(frozen=True, eq=False)
class _Faces:
    """Faces of all photos that are good enough to say who it is."""

    photo: np.ndarray  # (N,) which photo
    place: np.ndarray  # (N,) place in that photo's `Seen.faces`
    rows: np.ndarray  # (N, D) points whose distance tells people apart
    slack: np.ndarray  # (N,) of distance: shut eyes look like nobody's


def pick_faces(seen: Sequence[Seen | None], usable: Callable[[Seen], bool],
               rules: Rules) -> tuple[list[Pick], bool]:
    """Choose the face of each photo that is the person of most photos.

    Args:
        seen: one per photo; None where nothing could be seen.
        usable: whether a face is good enough to say who it is.

    Returns:
        One pick per photo, and whether one person stands out (True with fewer than two faces).
    """
    picks = [Pick() for _ in seen]
    faces = _gather(seen, usable, rules)
    if len(set(faces.photo.tolist())) < 2:
        return picks, True
    people = _people(faces, group(faces.rows, rules.stranger[1]))
    majority = _majority(faces, people, rules)
    if majority is None:
        for photo in np.unique(faces.photo):
            first = int(np.flatnonzero(faces.photo == photo)[0])
            picks[photo] = Pick(int(faces.place[first]), int(people[first]))
        return picks, False
    distances = _to_others(faces, majority)
    order = np.argsort(faces.photo, kind="stable")
    starts = np.flatnonzero(np.diff(faces.photo[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        member = members[_choose(distances[members] - faces.slack[members], rules)]
        near = distances[member] - faces.slack[member] <= rules.stranger[1]
        # The majority's own group may leave out a face that is near its centre after all.
        person = 1 if near else max(int(people[member]), 2)
        picks[faces.photo[member]] = Pick(int(faces.place[member]), person,
                                          float(distances[member]), float(faces.slack[member]))
    return picks, True


def group(rows: np.ndarray, cut: float) -> np.ndarray:
    """Group embeddings (N, D) by person: (N,) labels from 0.

    Agglomerative clustering by average linkage (Sokal and Michener 1958): groups join while the
    mean distance of their members stays within `cut`. Beyond some thousands of faces an even
    sample forms the groups, the rest joins the nearest centre within `cut`, and what is left is
    grouped by itself, so that memory stays bounded.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import

    if len(rows) < 2:
        return np.zeros(len(rows), np.int64)
    sample = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _AT_ONCE)).astype(int))
    labels = np.full(len(rows), -1, np.int64)
    labels[sample] = fcluster(linkage(rows[sample], "average"), cut, "distance") - 1
    rest = np.flatnonzero(labels < 0)
    if not rest.size:
        return labels
    count = int(labels.max()) + 1
    centres = np.stack([rows[labels == label].mean(0) for label in range(count)])
    apart = pairwise(rows[rest], centres)
    near = apart.min(1) <= cut
    labels[rest[near]] = apart.argmin(1)[near]
    left = rest[~near]
    labels[left] = count + group(rows[left], cut)
    return labels


def pairwise(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """L2 distances of rows (N, D) and (M, D): (N, M), without an (N, M, D) array between."""
    squares = (a ** 2).sum(1)[:, None] + (b ** 2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))


def _gather(seen: Sequence[Seen | None], usable: Callable[[Seen], bool],
            rules: Rules) -> _Faces:
    most = 1 if rules.several_faces == "largest" else None
    found = [(photo, place, face) for photo, one in enumerate(seen) if one is not None
             for place, face in enumerate(one.faces[:most])
             if face.embedding is not None and usable(face)]
    rows = np.stack([face.embedding for _, _, face in found]) if found else np.zeros(
        (0, 1), np.float32)
    return _Faces(np.array([photo for photo, _, _ in found], int),
                  np.array([place for _, place, _ in found], int), rows,
                  np.array([_slack(face, rules) for _, _, face in found]))


def _slack(face: Seen, rules: Rules) -> float:
    """Nothing for open eyes, all that `Rules.shut_eyes` allows from where eyes count as closed."""
    shut = face.measures.get("eyes_closed", 0.0) / rules.eyes_closed
    return rules.shut_eyes * float(np.clip((shut - _NARROW) / (1 - _NARROW), 0, 1))


def _people(faces: _Faces, labels: np.ndarray) -> np.ndarray:
    """Number the groups from 1: by photos, then by photos where the face is the largest."""
    def weight(label: int) -> tuple[int, int, int]:
        mine = labels == label
        return (-len(set(faces.photo[mine].tolist())), -int((faces.place[mine] == 0).sum()),
                int(np.flatnonzero(mine)[0]))

    number = {label: place for place, label in
              enumerate(sorted(set(labels.tolist()), key=weight), start=1)}
    return np.array([number[label] for label in labels.tolist()])


def _majority(faces: _Faces, people: np.ndarray, rules: Rules) -> np.ndarray | None:
    """Where the faces of the person of most photos lie in `faces`: (M,), or None."""
    def count(person: int) -> tuple[int, int]:
        mine = people == person
        return len(set(faces.photo[mine].tolist())), int((faces.place[mine] == 0).sum())

    photos = len(set(faces.photo.tolist()))
    first, rival = count(1), count(2)
    stands_out = first > rival and first[0] > 1 and first[0] >= rules.majority * photos
    return np.flatnonzero(people == 1) if stands_out else None


def _to_others(faces: _Faces, majority: np.ndarray) -> np.ndarray:
    """Distance of every face to the centre of the majority's faces on other photos: (N,)."""
    photos = int(faces.photo.max()) + 1
    total = faces.rows[majority].astype(np.float64).sum(0)
    own = np.zeros((photos, faces.rows.shape[1]))
    np.add.at(own, faces.photo[majority], faces.rows[majority])
    held = np.bincount(faces.photo[majority], minlength=photos)
    count = np.maximum(len(majority) - held[faces.photo], 1)
    centres = (total - own[faces.photo]) / count[:, None]
    return np.linalg.norm(faces.rows - centres, axis=1)


def _choose(distances: np.ndarray, rules: Rules) -> int:
    """Which of one photo's faces (F,) is the person; the largest when none is."""
    nearest = int(distances.argmin())
    return nearest if distances[nearest] <= rules.stranger[1] else 0
