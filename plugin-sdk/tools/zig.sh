#!/bin/sh
# Prints the command that runs Zig 0.17, whose language changes from version to version: $ZIG,
# `zig`, or PyPI's ziglang, which is installed into .venv of the current folder where the
# others are not there. Zig is a C compiler, too.
set -eu
version=0.17.1
if [ -n "${ZIG-}" ]; then
    echo "$ZIG"
    exit
fi
case "$(zig version 2>/dev/null || true)" in
    0.17.*)
        echo zig
        exit
        ;;
esac
for python in .venv/bin/python python3; do
    case "$("$python" -m ziglang version 2>/dev/null || true)" in
        0.17.*)
            echo "$python -m ziglang"
            exit
            ;;
    esac
done
if ! command -v python3 >/dev/null; then
    echo "zig.sh: no Zig 0.17: install it from https://ziglang.org, or Python 3 (Debian: apt-get install python3 python3-venv), which gets it from PyPI" >&2
    exit 1
fi
echo "zig.sh: installing PyPI's ziglang $version into $(pwd)/.venv" >&2
python3 -m venv .venv >&2
.venv/bin/pip install --quiet --disable-pip-version-check "ziglang==$version" >&2
echo ".venv/bin/python -m ziglang"
