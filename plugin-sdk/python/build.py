#!/usr/bin/env python3
"""Makes a component of a plugin in Python.

    python build.py [--wasi] MODULE OUTPUT.wasm INTERFACE...

The interfaces are those of ../wit that the plugin exports or imports: `key`, `load`,
`on-request`, `on-response`; `fetch`, `kv`, `clock`, `random`. Exactly these are asked for,
because each import but `log` has to be granted in the YAML of the gateway.

MODULE is a module in the current folder. The tool is componentize-py (PyPI), beside this
Python or on the PATH. WASI is cut off, so that time and `random` trap or repeat themselves;
`--wasi` leaves it in, for the YAML's `wasi: minimal`. Around the plugin's methods stand our
own, which write an exception to the log before it becomes a trap.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXPORTS = ("manifest", "key", "load", "on-request", "on-response")
IMPORTS = ("log", "fetch", "kv", "clock", "random")
# The class and the method of each exported interface, and how the types begin that it returns.
METHODS = {
    "manifest": ("Manifest", "describe", "Manifest"),
    "key": ("Key", "derive", "KeyDecision_"),
    "load": ("Load", "load", "LoadDecision_"),
    "on-request": ("OnRequest", "handle", "RequestDecision_"),
    "on-response": ("OnResponse", "handle", "ResponseDecision_"),
}
ENTRY = "lamina_entry"
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


# No `traceback`: it looks for files, and there are none.
WRAPPER = """
from componentize_py_types import Err
from wit_world.imports import log

def said(error):
    lines, at = [f"{type(error).__name__}: {error}"], error.__traceback__.tb_next
    while at:
        code = at.tb_frame.f_code
        lines.append(f"  at {code.co_filename}:{at.tb_lineno}, in {code.co_name}")
        at = at.tb_next
    return "\\n".join(lines)

def told(name, decision, inside):
    def call(self, *given):
        try:
            answer = inside(self, *given)
            if not type(answer).__name__.startswith(decision):
                raise TypeError(f"the method of {name} returned {answer!r}; expected types.{decision}…")
            return answer
        except Err:
            raise
        except Exception as error:
            log.write(log.Level.ERROR, said(error))
            raise
    return call

def wrapped(name, method, decision):
    plain = getattr(plugin, name, None)
    inside = getattr(plain, method, None)
    if inside is None or getattr(inside, "__isabstractmethod__", False):
        raise TypeError(f"MODULE.py: expected `class {name}(exports.{name})` with a method `{method}`")
    return type(name, (plain,), {method: told(name, decision, inside)})
"""


def entry(module: str, interfaces: list[str]) -> str:
    """What is built: the plugin's classes, with a method of ours around each of theirs."""
    lines = [f"import {module} as plugin", WRAPPER.replace("MODULE", module)]
    for name in dict.fromkeys(["manifest", *interfaces]):
        if name in METHODS:
            lines.append(f"{METHODS[name][0]} = wrapped{METHODS[name]!r}")
    return "\n".join(lines) + "\n"


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
        (Path(wit) / "python").mkdir()
        (Path(wit) / "python" / f"{ENTRY}.py").write_text(entry(module, interfaces))
        command = [tool, "--quiet", "-d", wit, "-w", "plugin", "componentize", "-o", output]
        command += ["-p", ".", "-p", str(Path(wit) / "python"), ENTRY]
        if not wasi:
            command.append("--stub-wasi")
        # A mistake is told in one line, not with the stack of the tool.
        quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "RUST_BACKTRACE": "0"}
        return subprocess.run(command, env=quiet).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
