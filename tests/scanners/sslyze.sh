#!/usr/bin/env bash
# sslyze from PyPI, in a virtual environment below the target folder.
#
#   tests/scanners/sslyze.sh --install    first installs what is missing (as `make test` does)
#   tests/scanners/sslyze.sh ARGUMENT …   runs it
set -euo pipefail
cd "$(dirname "$0")"
work=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/sslyze

if [ "${1:-}" = --install ]; then
    mkdir -p "$work"
    if ! cmp -s requirements.txt "$work/.installed"; then
        python3 -m venv "$work"
        "$work/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
        cp requirements.txt "$work/.installed"
    fi
    exit 0
fi
exec "$work/bin/python" -W ignore -m sslyze "$@"
