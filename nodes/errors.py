"""The pack's exceptions. Their text is what a user and the HTTP API read: one sentence each."""

from __future__ import annotations


class LikenessError(ValueError):
    """Something the user can mend; the text says what happened, to which item, and what to do."""


class MissingModelError(LikenessError):
    """A model file that this step needs is not on the machine."""


class FaceNotFoundError(LikenessError):
    """A recogniser's own detector does not see a face where one was found."""


class PictureError(LikenessError):
    """A model failed on one picture; others may go well."""


class NotSavedError(LikenessError):
    """What was trained is there, and its file could not be written."""


class HostTooOldError(LikenessError):
    """The running ComfyUI lacks something the pack is built on."""
