#!/bin/sh
# Builds {{name}}.wasm. `lamina plugin build` runs this.
set -eu
cd "$(dirname "$0")"
if ! cmp -s requirements.txt .venv/requirements.txt; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/
fi
.venv/bin/python "{{sdk}}/python/build.py" plugin {{name}}.wasm key
