#!/usr/bin/env bash
# Applications and clients that purge, as their authors ship them: Wagtail from PyPI, and the clients
# `fastly` and `cloudflare` from npm and PyPI, below the target folder.
#
#   tests/cms/control.sh --install         installs what is missing (as `make test` does)
#   tests/cms/control.sh FILE ARGUMENT …   runs a program of this folder, in Python or for Node.js
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
work=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/cms

if [ "${1:-}" = --install ]; then
    mkdir -p "$work"
    if ! cmp -s requirements.txt "$work/.python"; then
        python3 -m venv "$work/python"
        "$work/python/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
        cp requirements.txt "$work/.python"
    fi
    if ! cmp -s package-lock.json "$work/.node"; then
        cp package.json package-lock.json "$work/"
        npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --silent >&2
        cp package-lock.json "$work/.node"
    fi
    exit 0
fi

program=$here/$1
shift
cd "$work"
case "$program" in
*.py) PYTHONDONTWRITEBYTECODE=1 exec "$work/python/bin/python" -W ignore "$program" "$@" ;;
# Its packages are found from the work folder.
*) CMS_MODULES=$work/node_modules/ exec node --no-warnings --require "$here/resolve.cjs" "$program" "$@" ;;
esac
