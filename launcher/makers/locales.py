"""Compares and completes what `locales/` says of every node, in ComfyUI's format for packs.

    python -m launcher.makers.locales OBJECT_INFO.json [--language zh] [--write]

English stands in the nodes' schemas, where the frontend takes what a language lacks from; so there
is no file for it. The rest is written by hand: `--write` sorts a language's file, takes out what no
node has any more, and puts in what is missing: the translation of the same words elsewhere in
the file, else the English words, which the tests then refuse.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCALES = Path(__file__).resolve().parents[2] / "locales"
FILE = "nodeDefs.json"
PREFIX = "Likeness"
# The frontend takes a text apart at these: a placeholder, a link, another plural.
SYNTAX = frozenset("{}@|")

Place = tuple[str, ...]  # node, then display_name or description, or a group, a socket and a field
NodeDefs = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Where a language's file and the nodes differ."""

    missing: tuple[Place, ...]
    left_over: tuple[Place, ...]


def english(object_info: Mapping[str, Any]) -> NodeDefs:
    """What the pack's nodes say of themselves, from a host's `object_info`."""
    return {name: _node(info) for name, info in sorted(object_info.items())
            if name.startswith(PREFIX)}


def _node(info: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {}
    for part in ("required", "optional"):
        for name in info["input_order"].get(part, []):
            spec = info["input"][part][name]
            options = spec[1] if len(spec) > 1 else {}
            inputs[_key(name)] = _socket(options.get("display_name") or name,
                                         options.get("tooltip"))
    named = zip(info["output_name"], info["output_tooltips"], strict=True)
    outputs = {str(index): _socket(name, tooltip) for index, (name, tooltip) in enumerate(named)}
    return {"display_name": info["display_name"], "description": info["description"],
            "inputs": inputs, "outputs": outputs}


def _key(name: str) -> str:
    """An input's id as the frontend looks it up: dots separate the parts of a place."""
    return name.replace(".", "_")


def _socket(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": name} | ({"tooltip": tooltip} if tooltip else {})


def texts(node_defs: Mapping[str, Any], place: Place = ()) -> dict[Place, str]:
    """Every text by its place."""
    found: dict[Place, str] = {}
    for name, content in node_defs.items():
        here = (*place, name)
        found |= {here: content} if isinstance(content, str) else texts(content, here)
    return found


def compare(source: Mapping[str, Any], other: Mapping[str, Any]) -> Comparison:
    """What `other` lacks of the English texts, and what it has too much."""
    wanted, present = texts(source), texts(other)
    return Comparison(tuple(place for place in wanted if not present.get(place, "").strip()),
                      tuple(place for place in present if place not in wanted))


def complete(source: Mapping[str, Any], other: Mapping[str, Any]) -> NodeDefs:
    """`other` in the order of the English texts, gaps filled, left-over texts taken out."""
    wanted, present = texts(source), texts(other)
    known = {(place[-1], wanted[place]): text for place, text in present.items()
             if place in wanted and text.strip()}
    filled: NodeDefs = {}
    for place, words in wanted.items():
        inner = filled
        for part in place[:-1]:
            inner = inner.setdefault(part, {})
        text = present.get(place, "")
        inner[place[-1]] = text if text.strip() else known.get((place[-1], words), words)
    return filled


def read(language: str, file: str = FILE) -> NodeDefs:
    """A language's file; an empty mapping where there is none."""
    path = LOCALES / language / file
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def as_text(content: Mapping[str, Any]) -> str:
    """How the files are written."""
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("object_info", type=Path, help="what /object_info of a host answers")
    parser.add_argument("--language", default="zh")
    parser.add_argument("--write", action="store_true", help="complete and sort the file")
    args = parser.parse_args()
    source = english(json.loads(args.object_info.read_text(encoding="utf-8")))
    present = read(args.language)
    found = compare(source, present)
    for word, places in (("missing", found.missing), ("left over", found.left_over)):
        for place in places:
            print(f"{word}: {'.'.join(place)}")
    print(f"{len(texts(source))} texts, {len(found.missing)} missing, "
          f"{len(found.left_over)} left over")
    if args.write:
        path = LOCALES / args.language / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_text(complete(source, present)), encoding="utf-8")


if __name__ == "__main__":
    main()
