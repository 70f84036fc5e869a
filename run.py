#!/usr/bin/env python3
"""Likeness on the command line: set up a host, run the demo, queue workflows, test, measure.

    python run.py setup | demo | serve | queue | test | bench      (each has --help)

Needs Python alone: what else it takes, it sets up.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - says so instead of a syntax error
    sys.exit("Likeness needs Python 3.10 or newer (3.11 to set up a host of its own); this is "
             + sys.version.split()[0] + ".")

from launcher.command_line import main  # noqa: E402 - an older Python could not read it

if __name__ == "__main__":
    sys.exit(main())
