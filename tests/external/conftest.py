"""Collects these tests only where a foreign trainer's source is named.

LIKENESS_SD_SCRIPTS: folder of github.com/kohya-ss/sd-scripts; LIKENESS_SD_SCRIPTS_PYTHON: the
interpreter of an environment with its packages and lycoris-lora. No network is needed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "unit" / "training"))

NAMED = ("LIKENESS_SD_SCRIPTS", "LIKENESS_SD_SCRIPTS_PYTHON")
collect_ignore_glob = [] if all(map(os.environ.get, NAMED)) else ["test_*.py"]
