#!/usr/bin/env python3
"""Makes what the Dockerfile describes without a container engine, and tries it: its instructions are
read and carried out in bare roots of Debian 12, as root, with debootstrap.

    scripts/image.py build    target/image/root is what the image would hold
    scripts/image.py try      starts it as an engine would: its user, a read-only root, its volumes,
                              no network but loopback; asks for pages and for its health, stops it
    scripts/image.py          both

An instruction, a flag or a base image that is not known here is an error, so that nothing of the
Dockerfile is skipped silently. The base images are stood in for: `rust:VERSION-slim-bookworm` by
debootstrap and the rustup toolchain of this machine, whose version must be the same, and
`gcr.io/distroless/cc-debian12:nonroot` by the Debian packages that it consists of.

What this machine needs to reach registries (names, certificates, apt's settings) is lent to the roots.
"""
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PLACE = REPOSITORY / "target" / "image"
SUITE = "bookworm"
# What debootstrap makes in either root; `rust:slim` has the compiler, distroless has none of it.
OF_RUST = "ca-certificates,gcc,libc6-dev"
OF_DISTROLESS = ["base-files", "netbase", "tzdata", "libc6", "libssl3", "libgcc-s1", "libgomp1", "libstdc++6"]
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Variables by which clients find the certificates of a registry's mirror, and a proxy.
LENT = re.compile(r"(?i)(https?|no|all)_proxy|.*_CA_.*|.*CAINFO|SSL_CERT_FILE|PIP_CERT|REQUESTS_CA_BUNDLE")


class Refused(Exception):
    """The Dockerfile says something that is not known here, or what it describes does not work."""


@dataclass
class Instruction:
    word: str
    flags: list
    rest: str
    line: int


@dataclass
class Stage:
    base: str
    root: Path
    env: dict = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    volumes: list = field(default_factory=list)
    stop: str = "SIGTERM"
    health: list = field(default_factory=list)
    entrypoint: list = field(default_factory=list)
    command: list = field(default_factory=list)


def instructions(text):
    """The instructions of a Dockerfile."""
    found, pending, began = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (line.strip() or pending):
            continue
        began = began if pending else number
        if line.endswith("\\"):
            pending += line[:-1].strip() + " "
            continue
        words = (pending + line.strip()).split(maxsplit=1)
        pending, flags, rest = "", [], words[1] if len(words) > 1 else ""
        while words[0].upper() != "CMD" and rest.startswith("--"):
            flag, _, rest = rest.partition(" ")
            flags.append(flag[2:])
            rest = rest.strip()
        found.append(Instruction(words[0].upper(), flags, rest, began))
    if pending:
        raise Refused(f"Dockerfile:{began}: the instruction does not end")
    return found


def run(*words, **more):
    subprocess.run([str(word) for word in words], check=True, **more)


def debootstrap(root, include):
    run("debootstrap", "--variant=minbase", f"--include={include}", SUITE, root, stdout=subprocess.DEVNULL)


def lend_network(root):
    for name in ["etc/resolv.conf", "etc/hosts", BUNDLE, "etc/pip.conf", "root/.npmrc", "root/.cargo/config.toml"]:
        there = Path("/") / name
        if there.exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there, root / name)
    for conf in Path("/etc/apt/apt.conf.d").glob("*"):
        if "Acquire" in conf.read_text():
            shutil.copyfile(conf, root / "etc/apt/apt.conf.d" / conf.name)


def begin_from_rust(version, stage):
    debootstrap(stage.root, OF_RUST)
    lend_network(stage.root)
    stage.env |= {"RUSTUP_HOME": "/usr/local/rustup", "CARGO_HOME": "/usr/local/cargo", "PATH": f"/usr/local/cargo/bin:{PATH}"}
    said = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout
    if said.split()[1].rpartition(".")[0] != version:
        raise Refused(f"the Dockerfile begins from Rust {version}, this machine has {said.strip()}")
    home = Path(os.environ.get("RUSTUP_HOME", Path.home() / ".rustup"))
    rustup, cargo = stage.root / "usr/local/rustup", stage.root / "usr/local/cargo/bin"
    for folder in (rustup, PLACE / "rustup-changes", PLACE / "rustup-work"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    layers = f"lowerdir={home},upperdir={PLACE}/rustup-changes,workdir={PLACE}/rustup-work"
    run("mount", "-t", "overlay", "-o", layers, "overlay", rustup)
    programs = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "bin"
    shutil.copytree(programs, cargo, symlinks=True)


def begin_from_distroless(stage):
    debs = PLACE / "debs"
    debs.mkdir(exist_ok=True)
    os.chmod(debs, 0o777)
    run("apt-get", "download", "-q", *OF_DISTROLESS, cwd=debs, stdout=subprocess.DEVNULL)
    for deb in sorted(debs.glob("*.deb")):
        run("dpkg-deb", "--extract", deb, stage.root)
    (stage.root / BUNDLE).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path("/") / BUNDLE, stage.root / BUNDLE)
    for folder in ("tmp", "home/nonroot", "proc", "dev"):
        (stage.root / folder).mkdir(parents=True, exist_ok=True)
    os.chmod(stage.root / "tmp", 0o1777)
    os.chown(stage.root / "home/nonroot", 65532, 65532)
    users = "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
    (stage.root / "etc/passwd").write_text(users + "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
    (stage.root / "etc/group").write_text("root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n")
    stage.env["PATH"] = PATH
    stage.user = "65532:65532"


def begin(base, name):
    stage = Stage(base, PLACE / name)
    shutil.rmtree(stage.root, ignore_errors=True)
    stage.root.mkdir(parents=True)
    rust = re.fullmatch(rf"rust:([\d.]+)-slim-{SUITE}", base.partition("@")[0])
    if rust:
        begin_from_rust(rust[1], stage)
    elif base.partition("@")[0] == "gcr.io/distroless/cc-debian12:nonroot":
        begin_from_distroless(stage)
    else:
        raise Refused(f"the base image {base} is not known here")
    return stage


def ignored():
    """What `.dockerignore` leaves out of the context, as a test of relative paths."""
    lines = (REPOSITORY / ".dockerignore").read_text().split()
    if any(line.startswith("!") for line in lines):
        raise Refused(".dockerignore: exceptions are not known here")

    def leaves_out(path):
        parts = path.split("/")
        for line in lines:
            if line.startswith("**/"):
                if any(fnmatch.fnmatchcase(part, line[3:]) for part in parts):
                    return True
            elif fnmatch.fnmatchcase("/".join(parts[: line.count("/") + 1]), line):
                return True
        return False

    return leaves_out


def copy_context(target):
    leaves_out = ignored()
    # The files of the project as they are, without what git ignores: an engine would be given a clone.
    files = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in files.stdout.split("\0"):
        if name and not leaves_out(name) and (REPOSITORY / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name, follow_symlinks=False)


def copy(stage, stages, step):
    flags = dict(flag.split("=", 1) for flag in step.flags)
    if flags.keys() - {"from", "chown"}:
        raise Refused(f"Dockerfile:{step.line}: COPY has a flag that is not known here")
    source, target = step.rest.split()
    to = stage.root / os.path.join(stage.folder, target).lstrip("/")
    if "from" not in flags:
        if source != ".":
            raise Refused(f"Dockerfile:{step.line}: COPY of a part of the context is not known here")
        copy_context(to)
        return
    at = stages[flags["from"]].root / source.lstrip("/")
    existed = to.exists()
    shutil.copytree(at, to, symlinks=True, dirs_exist_ok=True)
    if not existed:
        shutil.copystat(at, to)
    if "chown" in flags:
        owner, group = flags["chown"].split(":")
        for path in [to, *to.rglob("*")]:
            os.chown(path, int(owner), int(group), follow_symlinks=False)


def run_step(stage, step):
    mounts = []
    for flag in step.flags:
        keys = dict(part.split("=", 1) for part in flag.removeprefix("mount=").split(","))
        if not flag.startswith("mount=") or keys.keys() != {"type", "target"} or keys["type"] != "cache":
            raise Refused(f"Dockerfile:{step.line}: the flag --{flag} is not known here")
        mounts.append(keys["target"])
    for target in mounts:
        cache, at = PLACE / "caches" / target.strip("/").replace("/", "-"), stage.root / target.lstrip("/")
        for folder in (cache, at):
            folder.mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", cache, at)
    lent = {name: value for name, value in os.environ.items() if LENT.fullmatch(name)}
    lent = {name: f"/{BUNDLE}" if value.endswith(".crt") else value for name, value in lent.items()}
    print(f"image: {step.word} {step.rest[:100]}", flush=True)
    script = f"cd {shlex.quote(stage.folder)} && {step.rest}"
    env = {"HOME": "/root", "PATH": PATH} | lent | stage.env
    try:
        run("chroot", stage.root, "/bin/sh", "-c", script, env=env)
    except subprocess.CalledProcessError as error:
        raise Refused(f"Dockerfile:{step.line}: RUN ended with {error.returncode}") from error
    finally:
        for target in mounts:
            run("umount", stage.root / target.lstrip("/"))


def assigned(text):
    return dict(part.split("=", 1) for part in shlex.split(text))


def carry_out(step, stage, stages):
    match step.word:
        case "RUN":
            run_step(stage, step)
        case "COPY":
            copy(stage, stages, step)
        case "ENV":
            stage.env |= assigned(step.rest)
        case "WORKDIR":
            stage.folder = step.rest
            (stage.root / step.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = step.rest
        case "VOLUME":
            stage.volumes += step.rest.split()
        case "STOPSIGNAL":
            stage.stop = step.rest
        case "HEALTHCHECK":
            stage.health = json.loads(step.rest.removeprefix("CMD"))
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(step.rest)
        case "CMD":
            stage.command = json.loads(step.rest)
        case "LABEL":
            assigned(step.rest)
        case "EXPOSE":
            if not all(re.fullmatch(r"\d+(/(tcp|udp))?", port) for port in step.rest.split()):
                raise Refused(f"Dockerfile:{step.line}: EXPOSE wants numbers of ports")
        case _:
            raise Refused(f"Dockerfile:{step.line}: {step.word} is not known here")


def prepare(root):
    """What every container has."""
    for folder in ("proc", "dev"):
        if not (root / folder).exists():
            (root / folder).mkdir()
    run("mount", "-t", "proc", "proc", root / "proc")
    run("mount", "--rbind", "/dev", root / "dev")


def build():
    stages, stage = {}, None
    for step in instructions((REPOSITORY / "Dockerfile").read_text()):
        if step.word != "FROM":
            carry_out(step, stage, stages)
            continue
        words = step.rest.split()
        name = words[2] if len(words) == 3 and words[1].upper() == "AS" else "root"
        stage = stages[name] = begin(words[0], name)
        prepare(stage.root)
    if stage is None or not stage.entrypoint or not stage.health:
        raise Refused("the Dockerfile's last stage has no ENTRYPOINT or no HEALTHCHECK")
    about = {name: getattr(stage, name) for name in ("env", "user", "volumes", "stop", "health", "entrypoint", "command")}
    (PLACE / "image.json").write_text(json.dumps(about, indent=2))
    for one in stages.values():
        for at in ("dev", "proc"):
            run("umount", "--recursive", one.root / at)
    size = sum(path.lstat().st_size for path in stage.root.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"image: built, {size >> 20} MiB in {stage.root}", flush=True)


class Container:
    """The image, as an engine would run it with `--read-only`."""

    def __init__(self):
        self.about = json.loads((PLACE / "image.json").read_text())
        self.root = PLACE / "root"
        run("mount", "--bind", self.root, self.root)
        run("mount", "-o", "remount,bind,ro", self.root)
        prepare(self.root)
        for volume in self.about["volumes"]:
            at = self.root / volume.lstrip("/")
            status = at.stat()
            owner = f"mode={status.st_mode & 0o7777:o},uid={status.st_uid},gid={status.st_gid}"
            run("mount", "-t", "tmpfs", "-o", owner, "tmpfs", at)

    def start(self, words, more=()):
        env = self.about["env"] | dict(more)
        chroot = ["chroot", f"--userspec={self.about['user']}", "--groups=", str(self.root), *words]
        return subprocess.Popen(chroot, env=env)


def asked(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status, answer.headers.get("cache-status", ""), answer.read()


def until(what, seconds, probe):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found = probe()
        if found:
            return found
        time.sleep(0.1)
    raise Refused(f"not within {seconds} s: {what}")


def answers(url):
    try:
        return asked(url)
    except (urllib.error.URLError, OSError):
        return None


def check(holds, what):
    if not holds:
        raise Refused(what)


def try_it():
    """In a network of its own, where every port is free."""
    run("ip", "link", "set", "lo", "up")
    container = Container()
    about = container.about
    health = lambda: container.start(about["health"]).wait()
    check(health() != 0, "a gateway that does not run is said to be well")
    origin = container.start([*about["entrypoint"], "demo-origin", "--listen", "127.0.0.1:9000"])
    gateway = container.start([*about["entrypoint"], *about["command"]])
    try:
        until("the gateway answers", 60, lambda: answers("http://127.0.0.1:8080/"))
        until("it is said to be well", 60, lambda: health() == 0)
        until("a page comes from the cache", 20, lambda: (answers("http://127.0.0.1:8080/pages/1") or (0, ""))[1].find("; hit") >= 0)
        status = (container.root / f"proc/{gateway.pid}/status").read_text()
        user = about["user"].split(":")[0]
        check(re.search(rf"^Uid:\t{user}\t{user}\t", status, re.M), f"it does not run as the user {user}")
        gateway.send_signal(signal.Signals[about["stop"]])
        check(gateway.wait(30) == 0, "it did not end well at the stop signal")
        check(health() != 0, "a gateway that has ended is said to be well")
    finally:
        for process in (gateway, origin):
            process.kill()
            process.wait()
    print("image: started, asked, found well and stopped", flush=True)


def main(words):
    if words[:1] == ["inside"]:
        {"build": build, "try": try_it}[words[1]]()
        return
    wanted = words or ["build", "try"]
    PLACE.mkdir(parents=True, exist_ok=True)
    # Mounts and processes go with the namespaces.
    apart = {"build": [], "try": ["--net"]}
    for one in wanted:
        spaces = ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child", *apart[one]]
        run("unshare", *spaces, sys.executable, __file__, "inside", one)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refused:
        sys.exit(f"image: {refused}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"image: {error}")
