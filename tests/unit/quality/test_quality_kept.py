"""What photos show is kept by their content, within a bound of bytes."""

from __future__ import annotations

import hashlib

import numpy as np
from likeness.nodes.quality import look as looking
from likeness.nodes.quality.look import Seen


def test_a_copy_under_another_name_is_not_measured_again(assets, tmp_path, monkeypatch):
    data = (assets / "obama3.jpg").read_bytes()
    looking.forget_photos()
    first = looking.look(assets / "obama3.jpg", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(looking, "look_at", lambda pixels: 1 / 0)
    assert looking.look(tmp_path / "copy.jpg", hashlib.sha256(data).hexdigest()) is first


def test_the_photos_not_asked_for_longest_are_forgotten_first():
    kept = looking._Kept(50_000)
    seen = [Seen(None, {}, np.zeros(2000, np.float32)) for _ in range(5)]
    for number, one in enumerate(seen[:3]):
        kept.put(str(number), one)
    assert kept.get("0") is seen[0]
    kept.put("3", seen[3])
    assert kept.get("1") is None
    assert [kept.get(name) for name in ("0", "2", "3")] == [seen[0], seen[2], seen[3]]
