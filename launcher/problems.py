"""What stops the launcher: one sentence that says what happened, to which item, and what to do."""

from __future__ import annotations


class Problem(Exception):
    """Something the user can mend; `run.py` prints its text and exits with `code`."""

    code = 1
