#!/usr/bin/env bash
# tools.sh [TOOL]...: installs what releases are made with, in the versions that are known to
# work, where it is missing. Without names: all of it.
set -euo pipefail
[ $# -gt 0 ] || set -- cargo-deb cargo-cyclonedx
for tool in "$@"; do
    case $tool in
    cargo-deb) version=3.8.0 ;;
    cargo-cyclonedx) version=0.5.9 ;;
    *) echo "tools.sh: $tool is none of ours" >&2 && exit 2 ;;
    esac
    command -v "$tool" >/dev/null || cargo install --locked --quiet "$tool" --version "$version"
done
