#!/usr/bin/env python3
"""Makes a component of a plugin in Python.

    python build.py [--wasi] MODULE OUTPUT.wasm INTERFACE...

The interfaces are those of ../wit that the plugin exports or imports: `key`, `load`,
`on-request`, `on-response`; `fetch`, `kv`, `clock`, `random`. Exactly these are asked for,
because each import but `log` has to be granted in the YAML of the gateway.

MODULE is a module in the current folder. The tool is componentize-py (PyPI), beside this
Python or on the PATH. WASI is cut off, so that time and `random` trap or repeat themselves;
`--wasi` leaves it in, for the YAML's `wasi: minimal`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXPORTS = ("manifest", "key", "load", "on-request", "on-response")
IMPORTS = ("log", "fetch", "kv", "clock", "random")
SDK = Path(__file__).resolve().parent.parent


def world(interfaces: list[str]) -> str:
    """A world of exactly these interfaces."""
    for name in interfaces:
        if name not in EXPORTS + IMPORTS:
            sys.exit(f"build.py: no interface is called {name}")
    names = dict.fromkeys(["manifest", "log", *interfaces])
    lines = [
        f"  {'export' if name in EXPORTS else 'import'} lamina:plugin/{name}@1.0.0;\n" for name in names
    ]
    return "package local:plugin;\nworld plugin {\n" + "".join(lines) + "}\n"


def main(arguments: list[str]) -> int:
    wasi = "--wasi" in arguments
    arguments = [argument for argument in arguments if argument != "--wasi"]
    if len(arguments) < 3:
        sys.exit("usage: build.py [--wasi] MODULE OUTPUT.wasm INTERFACE...")
    module, output, *interfaces = arguments
    beside = Path(sys.executable).parent / "componentize-py"
    tool = str(beside) if beside.exists() else shutil.which("componentize-py")
    if tool is None:
        sys.exit("build.py: no componentize-py: pip install componentize-py")
    with tempfile.TemporaryDirectory(prefix="lamina-wit-") as wit:
        shutil.copytree(SDK / "wit", Path(wit) / "deps" / "lamina-plugin")
        (Path(wit) / "world.wit").write_text(world(interfaces))
        command = [tool, "--quiet", "-d", wit, "-w", "plugin", "componentize", "-o", output, module]
        if not wasi:
            command.append("--stub-wasi")
        return subprocess.run(command, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
