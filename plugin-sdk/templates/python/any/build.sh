#!/bin/sh
# Builds {{name}}.wasm. `lamina plugin build` runs this.
set -eu
cd "$(dirname "$0")"
sdk="{{sdk}}"
[ -d "$sdk/wit" ] || { echo "build.sh: plugin-sdk is not at $sdk; put it there, or change build.sh" >&2; exit 1; }
if ! cmp -s requirements.txt .venv/requirements.txt; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/
fi
.venv/bin/python "$sdk/python/build.py" plugin {{name}}.wasm {{interfaces}}
