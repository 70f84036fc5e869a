"""Captions that the user brings along: typed in, or in text files beside the photos."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ...errors import LikenessError
from ...media.photo_files import captions_of
from ...media.texts import read_text
from ...sockets import Photo, Subject
from .wildcards import word_for_word

_FORM = ('`captions` takes one "file name: caption" per line, or a JSON object of file names and '
         "captions")


@dataclass(frozen=True)
class GivenCaptions:
    """Captions that replace the template for some photos; several lines are several captions."""

    texts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # by Photo.name
    unused: tuple[str, ...] = ()  # names of photos that do not train

    def joined(self, other: GivenCaptions) -> GivenCaptions:
        """Both together; where both have a photo, this one's captions hold."""
        return GivenCaptions(MappingProxyType({**other.texts, **self.texts}),
                             tuple(dict.fromkeys(self.unused + other.unused)))


def typed_captions(text: str, subject: Subject) -> GivenCaptions:
    """Read captions for photos named by their label or file name.

    Args:
        text: one `file name: caption` per line, a name may come again; or a JSON object whose
            values are captions or lists of them. Empty: none are given.

    Raises:
        LikenessError: the text has another form, or names a photo that does not exist.
    """
    texts: dict[str, list[str]] = {}
    unused: list[str] = []
    for name, caption in _entries(text):
        photo = _named(name, subject.references)
        if photo is not None:
            texts.setdefault(photo.name, []).append(caption)
        elif _exists(name, subject):
            unused.append(name)
        else:
            names = ", ".join(photo.name for photo in subject.references[:3])
            raise LikenessError(f"`captions` names `{name[:80]}`, which is none of the subject's "
                                f"photos; use names such as {names}.")
    return GivenCaptions(MappingProxyType({name: "\n".join(lines)
                                           for name, lines in texts.items()}),
                         tuple(dict.fromkeys(unused)))


def side_car_captions(photos: Iterable[Photo]) -> GivenCaptions:
    """Read `photo.txt` or `photo.caption` beside each `photo.jpg`; each line is a caption.

    Raises:
        LikenessError: a text file is empty, unreadable or not UTF-8.
    """
    texts = {}
    for photo in photos:
        for path in captions_of(photo.file)[:1]:
            texts[photo.name] = read_text(path)
            if not texts[photo.name].strip():
                raise LikenessError(f"The caption file {path.name} is empty; write a caption into "
                                    "it or delete it.")
    return GivenCaptions(MappingProxyType(texts))


def photo_captions(photos: Iterable[Photo]) -> GivenCaptions:
    """The captions that photos carry, word for word: braces in them are wildcards or no fields."""
    return GivenCaptions(MappingProxyType({
        photo.name: word_for_word(photo.caption) for photo in photos if photo.caption.strip()}))


def paragraphs_note(texts: Mapping[str, str], trigger: str) -> str:
    """One sentence on the photos whose lines look like paragraphs of one caption; empty for none.

    Lines look so with an empty one between, or when some have the trigger and others do not.
    """
    names = []
    for name, text in texts.items():
        lines = text.strip().splitlines()
        filled = [line for line in lines if line.strip()]
        having = sum(any(word in line for word in (trigger, "{subject}", "{trigger}"))
                     for line in filled)
        if len(filled) > 1 and (len(filled) < len(lines) or 0 < having < len(filled)):
            names.append(name)
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (f"Each line is a caption of its own, also in paragraphs like those of "
            f"{', '.join(names[:3])}{more}; write what is one caption on one line.")


def _entries(text: str) -> list[tuple[str, str]]:
    if text.lstrip().startswith("{"):
        return _from_json(text)
    found = []
    for line in filter(str.strip, text.splitlines()):
        name, colon, caption = line.partition(":")
        if not (colon and name.strip() and caption.strip()):
            raise LikenessError(f"{_FORM}; the line `{line.strip()[:80]}` is neither.")
        found.append((name.strip(), caption.strip()))
    return found


def _from_json(text: str) -> list[tuple[str, str]]:
    try:
        read = json.loads(text)
    except json.JSONDecodeError as err:
        raise LikenessError(f"{_FORM}; it begins like JSON but is not ({err}).") from err
    found = []
    for name, value in read.items():
        lines = value if isinstance(value, list) else [value]
        if not lines or not all(isinstance(line, str) and line.strip() for line in lines):
            raise LikenessError(f"{_FORM}; `{name[:80]}` has no text for a caption.")
        # A caption is one line everywhere else; a line break inside one would split it.
        found += [(name, " ".join(line.split())) for line in lines]
    return found


def _named(name: str, photos: Iterable[Photo]) -> Photo | None:
    """The photo of this label, or the only one with this file name."""
    photos = tuple(photos)
    same = [photo for photo in photos if photo.name == name]
    same = same or [photo for photo in photos if photo.file.name == name]
    if len(same) > 1:
        raise LikenessError(f"`captions` names `{name}`, which several photos are called; use one "
                            f"of {', '.join(photo.name for photo in same)}.")
    return same[0] if same else None


def _exists(name: str, subject: Subject) -> bool:
    """Whether a photo of this name is held out, or lies in the folder and was left out before."""
    if _named(name, subject.held_out) is not None:
        return True
    folders = {photo.file.parent for photo in subject.photos}
    return any(folder.is_dir() and name in {path.name for path in folder.iterdir()}
               for folder in folders)
