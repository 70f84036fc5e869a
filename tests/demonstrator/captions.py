"""Captions of the demonstrator's pictures: a few words in many forms, names, and words without
meaning.

Whatever the portraits cannot show is a word like any other to a user, so random tokens and the
phrases of the pack's styles stand among the captions: the model learns to look past what it does
not know. Phrases that name a colour stand where the picture has it. Before the noun no random word
stands, but often a name, the same for all pictures of one portrait: a rare word there says who it
is, as it does in models that have read names.
"""

from __future__ import annotations

import json

import numpy as np
from pack_import import ROOT

_LEADS = ("photo of", "portrait of", "headshot of", "professional headshot of", "a photo of",
          "studio portrait of", "close-up portrait of")
_NOUNS = {"male": ("man", "man", "man", "gentleman", "person"),
          "female": ("woman", "woman", "woman", "lady", "person")}
_EXPRESSIONS = {"laugh": ("smiling with teeth", "smiling", "smile"),
                "smile": ("smiling", "gentle smile", "smile"),
                "neutral": ("neutral expression", "calm expression"),
                "serious": ("serious expression", "neutral expression"),
                "talking": ("mouth open",)}
_CLOTHES = {"black": ("dark suit", "black suit", "charcoal suit", "suit and tie"),
            "blue": ("blue suit", "navy blazer", "navy suit"),
            "grey": ("grey suit", "grey jacket"), "white": ("white shirt", "light clothes"),
            "red": ("red clothes", "red jacket"), "brown": ("brown jacket",),
            "green": ("green clothes",), "purple": ("purple clothes",)}
_FRAMINGS = ("close-up", "facing the camera", "close-up, facing the camera",
             "head and shoulders")
_BACKGROUNDS = ("{} background", "{} background", "{} studio background", "plain {} background")
_SHADES = {"black": ("black", "dark"), "white": ("white", "bright", "light"),
           "grey": ("grey", "light grey", "neutral")}
_KEPT = {"age": 0.75, "expression": 0.75, "glasses": 0.95, "clothes": 0.65, "background": 0.7,
         "framing": 0.4}
# Styles of the pack whose attire and background a portrait of these colours can show.
_STYLED_CLOTHES = {"corporate": "blue", "editorial": "black", "studio black": "black",
                   "natural light": "white", "actor casting": "grey", "creative colour": "black"}
_STYLED_BACKGROUNDS = {"corporate": "grey", "editorial": "brown", "studio black": "black",
                       "natural light": "green", "actor casting": "blue",
                       "creative colour": "purple"}
_STYLED = 0.45  # share of captions with phrases of a style
EMPTY = 0.1  # share of captions without a word, for guidance
_NAMED = 0.8  # share of a portrait's captions with its name
_NOISY = 0.25  # share of captions with meaningless words
_VOCABULARY = 49405  # tokens of CLIP below start and end
_COMMA = 267  # its token for a comma


def age_words(age: int, gender: str) -> tuple[str, ...]:
    """How an age is spoken of."""
    decade = {20: "twenties", 30: "thirties", 40: "forties", 50: "fifties", 60: "sixties",
              70: "seventies", 80: "eighties"}[min(80, max(20, age // 10 * 10))]
    owner = "her" if gender == "female" else "his"
    rough = "young" if age < 45 else "middle-aged" if age < 63 else "old"
    return (f"in {owner} {decade}", f"{age} years old", rough, rough)


def _read_styles() -> tuple[dict, ...]:
    stored = json.loads((ROOT / "nodes" / "style" / "styles.json").read_text("utf-8"))
    return tuple(stored["styles"])


_STYLES = _read_styles()


def _style_phrases(label: dict, random: np.random.Generator) -> list[str]:
    """Phrases of one style, without those that the picture contradicts; attire and background
    of whatever style fits its colours.
    """
    style = _STYLES[int(random.integers(len(_STYLES)))]
    phrases = [style["light"], style["lens"], style["framing"]]
    for part, colours, seen in (("attire", _STYLED_CLOTHES, label["clothes"]),
                                ("background", _STYLED_BACKGROUNDS, label["background"])):
        fitting = [one[part] for one in _STYLES if colours[one["id"]] == seen]
        phrases += [str(random.choice(fitting))] if fitting else []
    return [phrase for phrase in phrases if random.random() < 0.8]


def name_of(file: str) -> str:
    """A made-up name of four letters for the person of one portrait, of the kind of "ohwx"."""
    random = np.random.default_rng(list(file.encode()))
    return "".join(random.choice(list(letters)) for letters in ("bdfgklmnoprstvz", "aeiouhlr",
                                                               "bdfgklmnprstvwz", "aeioxyk"))


def _background(colour: str) -> tuple[str, ...]:
    return tuple(form.format(shade) for form in _BACKGROUNDS
                 for shade in _SHADES.get(colour, (colour,)))


def caption(label: dict, random: np.random.Generator) -> str:
    """One caption of a picture; some are empty."""
    if random.random() < EMPTY:
        return ""
    parts = {"age": age_words(label["age"], label["gender"]),
             "expression": _EXPRESSIONS.get(label["expression"], ("",)),
             "glasses": ("wearing glasses", "glasses") if label["glasses"] else ("",),
             "clothes": _CLOTHES.get(label["clothes"], ("",)),
             "background": _background(label["background"]), "framing": _FRAMINGS}
    said = [str(random.choice(words)) for name, words in parts.items()
            if random.random() < _KEPT[name]]
    noun = str(random.choice(_NOUNS[label["gender"]]))
    if "young" in said or "old" in said or "middle-aged" in said:
        rough = next(word for word in ("young", "old", "middle-aged") if word in said)
        said.remove(rough)
        noun = f"{rough} {noun}"
    if "name" in label and random.random() < _NAMED:
        noun = f"{label['name']} {noun}"
    article = "a " if random.random() < 0.6 else ""
    first = f"{random.choice(_LEADS)} {article}{noun}"
    if random.random() < _STYLED:
        said += _style_phrases(label, random)
    random.shuffle(said)
    return ", ".join([first, *filter(None, said)])


def tokens(text: str, tokenizer: object, random: np.random.Generator | None) -> list[int]:
    """The 77 tokens of a caption, with meaningless ones after its first phrase where `random` is
    given.
    """
    row = [token for token, *_ in tokenizer.tokenize_with_weights(text)["l"][0]]
    if random is None or random.random() > _NOISY:
        return row
    start, end = row[0], row[-1]
    words = row[1:row.index(end)] if end in row else row[1:]
    first = words.index(_COMMA) + 1 if _COMMA in words else len(words)
    for _ in range(int(random.integers(1, 12))):
        words.insert(int(random.integers(first, len(words) + 1)),
                     int(random.integers(_VOCABULARY)))
    row = [start, *words[:75], end]
    return row + [end] * (77 - len(row))
