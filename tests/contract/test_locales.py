"""Texts of the nodes in other languages: complete, in their language, and true to the English.

A new node, input or output fails here until `locales/zh` names it;
`python -m launcher.makers.locales` lists what is missing.
"""

from __future__ import annotations

import asyncio
import re

import likeness
import pytest

from launcher.makers import locales

LANGUAGE = "zh"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
NUMBER = re.compile(r"\d+(?:\.\d+)*(?:e-?\d+)?")
QUOTED = re.compile(r"`[^`]+`")
SENTENCE = re.compile(r"(?:\b[A-Za-z]{2,}\b[ ,]+){7}")  # so many words in a row are English
# Names of things that users know by these letters in every language.
TECHNICAL = {"alpha", "CFG", "CLIP", "ControlNet", "embedding", "JSON", "LoRA", "min-SNR gamma",
             "rank", "VAE"}
CATEGORIES_OF_THE_HOST = {"training"}  # translated by the frontend itself


def _object_info() -> dict[str, dict]:
    extension = asyncio.run(likeness.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    return {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in nodes}


NODES = _object_info()
ENGLISH = locales.texts(locales.english(NODES))
CONTENT = locales.read(LANGUAGE)
TRANSLATED = locales.texts(CONTENT)


def _pairs(node: str) -> list[tuple[str, str, str]]:
    """Place, English and translation of every text of a node that has both."""
    return [(".".join(place), words, TRANSLATED[place]) for place, words in ENGLISH.items()
            if place[0] == node and place in TRANSLATED]


def _lost(pattern: re.Pattern, words: str, text: str) -> set[str]:
    return set(pattern.findall(words)) - set(pattern.findall(text))


def test_every_text_is_translated_and_none_is_left_over():
    found = locales.compare(locales.english(NODES), CONTENT)
    assert not found.missing, [".".join(place) for place in found.missing]
    assert not found.left_over, [".".join(place) for place in found.left_over]


@pytest.mark.parametrize("node", NODES)
def test_translations_are_in_their_language(node):
    for place, _, text in _pairs(node):
        label = place.endswith(".name")
        assert CHINESE.search(text) or (label and text in TECHNICAL), f"{place}: {text}"
        assert not SENTENCE.search(QUOTED.sub("", text)), f"{place}: {text}"


@pytest.mark.parametrize("node", NODES)
def test_translations_keep_numbers_and_quoted_names(node):
    for place, words, text in _pairs(node):
        assert not _lost(NUMBER, words, text), place
        assert not _lost(QUOTED, words, text), place
        assert not _lost(NUMBER, text, words), f"{place}: a number that the English lacks"


@pytest.mark.parametrize("node", NODES)
def test_labels_of_a_node_tell_its_inputs_apart(node):
    names = [socket["name"] for socket in CONTENT[node]["inputs"].values()]
    assert len(names) == len(set(names))


def test_the_same_words_are_translated_alike():
    seen: dict[str, str] = {}
    for place, words in ENGLISH.items():
        if place[-1] == "tooltip" and place in TRANSLATED:
            text = TRANSLATED[place]
            assert seen.setdefault(words, text) == text, ".".join(place)


def test_the_exceptions_are_no_more_than_needed():
    labels = {text for place, text in TRANSLATED.items() if place[-1] == "name"}
    assert TECHNICAL <= labels


def test_texts_hold_nothing_that_the_frontend_takes_apart():
    for place, text in TRANSLATED.items():
        assert not locales.SYNTAX & set(text), ".".join(place)


def test_display_names_differ_and_begin_with_the_packs_name():
    names = [content["display_name"] for content in CONTENT.values()]
    assert len(set(names)) == len(names)
    assert all(name.startswith("Likeness ") for name in names)


def test_every_category_is_translated():
    parts = {part for info in NODES.values() for part in info["category"].split("/")}
    assert set(locales.read(LANGUAGE, "main.json")) == {"nodeCategories"}
    categories = locales.read(LANGUAGE, "main.json")["nodeCategories"]
    assert set(categories) == parts - CATEGORIES_OF_THE_HOST
    assert all(CHINESE.search(text) for part, text in categories.items() if part != "likeness")


@pytest.mark.parametrize("path", sorted(locales.LOCALES.glob("*/*.json")),
                         ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_are_sorted_readable_utf8(path):
    written = path.read_bytes().decode("utf-8")
    content = locales.read(path.parent.name, path.name)
    assert written == locales.as_text(content)
    first = content if path.name == locales.FILE else content["nodeCategories"]
    assert list(first) == sorted(first)


def test_there_are_no_other_languages_or_files():
    assert {path.relative_to(locales.LOCALES).as_posix() for path in locales.LOCALES.rglob("*")
            if path.is_file()} == {"zh/main.json", "zh/nodeDefs.json"}


def _without(part: str) -> dict:
    info = NODES["LikenessCoach"]
    kept = {name: spec for name, spec in info["input"]["required"].items() if name != part}
    order = [name for name in info["input_order"]["required"] if name != part]
    return info | {"input": info["input"] | {"required": kept},
                   "input_order": info["input_order"] | {"required": order}}


def test_a_new_input_and_one_that_is_gone_are_told():
    old = locales.english(NODES | {"LikenessCoach": _without("photos")})
    new = locales.english(NODES)
    places = tuple(("LikenessCoach", "inputs", "photos", field) for field in ("name", "tooltip"))
    assert locales.compare(new, old) == locales.Comparison(places, ())
    assert locales.compare(old, new) == locales.Comparison((), places)


def test_completing_fills_gaps_by_the_same_words_elsewhere_and_drops_the_rest():
    source = {"A": {"display_name": "One", "inputs": {"x": {"name": "x", "tooltip": "Same."}}},
              "B": {"display_name": "Two", "inputs": {"y": {"name": "y", "tooltip": "Same."}}}}
    other = {"C": {"display_name": "Gone"},
             "A": {"display_name": "Uno", "inputs": {"x": {"name": "ics", "tooltip": "Uguale."}}}}
    assert locales.complete(source, other) == {
        "A": other["A"],
        "B": {"display_name": "Two", "inputs": {"y": {"name": "y", "tooltip": "Uguale."}}}}
