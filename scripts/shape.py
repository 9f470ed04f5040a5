#!/usr/bin/env python3
"""Measures the form of the gateway's code, without its tests: sizes, names, import circles, and the
arrows between crates.

    scripts/shape.py            the table
    scripts/shape.py --names    also the names that several types have

A type is a struct, enum, trait, union or alias. A name of one word has one capital letter. Files
are in an import circle when each can be reached from the other by `use` and by paths that begin
with `crate`, `super` or `self`.
"""
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "gateway"
# What a path through another crate begins with, and the crate's folder.
CRATES = {f"lamina_{name}": name for name in ("base", "http", "cache", "cluster", "edge")} | {"lamina_plugin_host": "plugin"}
TYPE = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?(?:unsafe )?(?:struct|enum|trait|union|type) (\w+)", re.M)
FUNCTION = re.compile(r"^(\s*)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?(?:unsafe )?fn (\w+)")
COMMENT = re.compile(r"^\s*//.*$", re.M)
VISIBILITY = re.compile(r"pub\(in [\w:]+\)")
GROUP = re.compile(r"\b((?:\w+::)+)\{([^{}]*)\}")
PATH = re.compile(r"\b((?:crate|super|self|lamina_\w+)(?:::\w+)+)")
KNOWN_AT_ROOT = re.compile(r"^use (lamina_\w+)(?: as (\w+)|::\{?([\w, ]+)\}?);", re.M)
PUBLIC_TYPE = re.compile(r"^\s*pub (?:unsafe )?(?:struct|enum|trait|union|type) (\w+)", re.M)
DEPENDENCY = re.compile(r"^lamina-(\w+)", re.M)
ASSOCIATED = re.compile(r"^\s{4,}type \w+( =|:|;)", re.M)


def sources():
    """The text of each file without its tests."""
    for file in sorted(ROOT.glob("*/src/**/*.rs")):
        if file.stem in ("tests", "oracle") or "tests" in file.parts:
            continue
        yield file, file.read_text().split("#[cfg(test)]\nmod tests {")[0]


def module(file):
    """The path of the module in a file."""
    crate, _, *parts = file.relative_to(ROOT).with_suffix("").parts
    return (crate,) if parts in (["lib"], ["main"]) else (crate, *parts)


def known_at_root(files):
    """For each crate the names that its `lib.rs` gives to modules of other crates."""
    known = {}
    for file, text in files.items():
        if file.stem not in ("lib", "main"):
            continue
        names = known.setdefault(module(file)[0], {})
        for crate, alias, group in KNOWN_AT_ROOT.findall(text):
            folder = CRATES.get(crate)
            if folder and alias:
                names[alias] = (folder,)
            elif folder:
                names |= {name.strip(): (folder, name.strip()) for name in group.split(",")}
    return known


def functions(text):
    """The name and the number of lines of each function."""
    lines = text.split("\n")
    for start, line in enumerate(lines):
        if found := FUNCTION.match(line):
            rest = lines[start:]
            head = next(later for later in rest if later.endswith(("{", "}", ";")))
            # A function of a trait may have no body, or an empty one.
            if not head.endswith((";", "{}")):
                end = f"{found[1]}}}"
                yield found[2], next((n for n, later in enumerate(rest) if later == end), 0) + 1


def single_paths(text):
    """The code of a file with `a::{b, c}` written as `a::b a::c`, without comments and visibilities."""
    code = VISIBILITY.sub("", COMMENT.sub("", text))
    while GROUP.search(code):
        code = GROUP.sub(lambda found: " ".join(found[1] + one.strip() for one in found[2].split(",")), code)
    return code


def imports(text, own, known, aliases):
    """The modules that a file names."""
    for path in PATH.findall(single_paths(text)):
        names = path.split("::")
        rest = names[1:]
        if names[0] in CRATES:
            base = (CRATES[names[0]],)
        elif names[0] == "crate" and rest[0] in aliases.get(own[0], {}):
            base, rest = aliases[own[0]][rest[0]], rest[1:]
        elif names[0] in ("crate", "self", "super"):
            base = {"crate": own[:1], "self": own, "super": own[:-1]}[names[0]]
        else:
            continue
        while rest and rest[0] == "super":
            base, rest = base[:-1], rest[1:]
        target = base + tuple(rest)
        while target and target not in known:
            target = target[:-1]
        if target and target != own:
            yield target


def circles(graph):
    """The strongly connected components with more than one member (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(stack[at:])
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return [circle for circle in found if len(circle) > 1]


def arrows():
    """What each crate depends on, apart from what its tests need."""
    for manifest in sorted(ROOT.glob("*/Cargo.toml")):
        text = manifest.read_text().split("[dev-dependencies]")[0]
        yield manifest.parent.name, sorted(set(DEPENDENCY.findall(text)))


def public_in_two_crates(files):
    """The names that public types of two crates have."""
    crates = {}
    for file, text in files.items():
        for name in PUBLIC_TYPE.findall(ASSOCIATED.sub("", text)):
            crates.setdefault(name, set()).add(module(file)[0])
    return sorted(name for name, found in crates.items() if len(found) > 1)


def main():
    sys.setrecursionlimit(10_000)
    files = dict(sources())
    known = {module(file) for file in files}
    sizes = {file: text.count("\n") for file, text in files.items()}
    longest = sorted(((n, name, file) for file, text in files.items() for name, n in functions(text)), reverse=True)
    names = Counter(name for text in files.values() for name in TYPE.findall(ASSOCIATED.sub("", text)))
    types = sum(names.values())
    one_word = sum(count for name, count in names.items() if sum(map(str.isupper, name)) == 1)
    shared = sum(count for count in names.values() if count > 1)
    aliases = known_at_root(files)
    graph = {module(file): sorted(set(imports(text, module(file), known, aliases))) for file, text in files.items()}
    in_circles = circles(graph)
    largest_file = max(sizes, key=sizes.get)
    n, function, file = longest[0]
    rows = [
        ("files, lines", f"{len(files)}, {sum(sizes.values())}"),
        ("largest file", f"{sizes[largest_file]} lines, {largest_file.relative_to(ROOT)}"),
        ("files over 500 lines", sum(size > 500 for size in sizes.values())),
        ("longest function", f"{n} lines, {function} in {file.relative_to(ROOT)}"),
        ("functions of 60 lines and more", sum(n >= 60 for n, *_ in longest)),
        ("types", types),
        ("type names of one word", f"{100 * one_word / types:.0f} %"),
        ("types that share their name", f"{100 * shared / types:.0f} %"),
        ("public type names in two crates", len(public_in_two_crates(files))),
        ("files in an import circle (largest)", f"{sum(map(len, in_circles))} ({max(map(len, in_circles), default=0)})"),
    ]
    for label, value in rows:
        print(f"{label:<38}{value}")
    for crate, others in arrows():
        print(f"  {crate} → {' '.join(others) or 'nothing'}")
    if "--names" in sys.argv[1:]:
        for name, count in names.most_common():
            if count > 1:
                print(f"  {name:<30}{count}")


main()
