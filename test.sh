#!/usr/bin/env bash
# The README's test command: installs Turntable with its test tools into the active environment, then checks all.
set -euo pipefail
cd "$(dirname "$0")"
python -m pip install --quiet '.[test]'
ruff check .
ruff format --check .
pyright
python -m pytest -n 2 --dist loadgroup "$@"
