"""Files that results in ComfyUI's memory rely on: where one is gone, its node runs again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# ComfyUI may hold several results of a node, each with its own files.
_REMEMBERED = 16

_Sizes = dict[Path, int]

_made: dict[str, list[_Sizes]] = {}
_losses: Counter[str] = Counter()


def remember(node: str, files: Iterable[Path]) -> None:
    """Note the files of a node's newest result.

    Args:
        node: its id; empty outside a prompt, where no result is held.
    """
    if node:
        result = {path: path.stat().st_size for path in files if path.is_file()}
        others = [known for known in _made.get(node, []) if known != result]
        _made[node] = [*others, result][-_REMEMBERED:]


def losses(node: str) -> str:
    """A text for `fingerprint_inputs` that changes once each time files of a node have gone.

    It does not change back, so that what was made anew is found in memory from then on.
    """
    known = _made.get(node, [])
    whole = [result for result in known if all(map(_is_whole, result, result.values()))]
    if len(whole) < len(known):
        _made[node] = whole
        _losses[node] += 1
    return f"files lost {_losses[node]} times" if _losses[node] else ""


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
