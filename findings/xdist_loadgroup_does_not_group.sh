#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.2.0, and with pytest 9.0.2 beside it.
#
# `--dist loadgroup` promises that tests marked `xdist_group` with one name run in one worker. With
# pytest 9.2.0 they are spread over all workers, without a word: xdist writes the group into the
# test's id, and pytest 9.2.0 does not take the id from there. What a group shares (a server, a
# session's fixture) then exists once for every worker. With pytest 9.0.2 the same run keeps them
# together. A scheduler of one's own (`pytest_xdist_make_scheduler`) works with both.
#
# Seen: 20 tests of one group in 2 workers with 9.2.0, in 1 with 9.0.2.
set -euo pipefail
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
cat > "$place/test_group.py" <<'PY'
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(20))
def test_of_one_group(number):
    time.sleep(0.05)
PY
workers() {  # pytest's version -> how many workers ran the group
    python3 -m venv "$place/env$1"
    "$place/env$1/bin/python" -m pip install --quiet "pytest==$1" pytest-xdist==3.8.0
    (cd "$place" && "env$1/bin/python" -m pytest -n 2 --dist loadgroup -v -p no:cacheprovider \
        test_group.py) | grep PASSED | grep -o '\[gw[0-9]\]' | sort -u | wc -l
}
new="$(workers 9.2.0)"
old="$(workers 9.0.2)"
echo "pytest 9.2.0: $new workers; pytest 9.0.2: $old"
[ "$new" -eq 2 ] && [ "$old" -eq 1 ]
echo "As described."
