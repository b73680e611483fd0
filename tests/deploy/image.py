"""Builds a Dockerfile without Docker, as root: every FROM is a copy of a folder with a system in it, every
RUN and COPY is done there (RUN in namespaces of its own, chrooted), and what it says of users and environment
is obeyed."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import psutil
from dockerfile_parse import DockerfileParser
from serving import eventually


@dataclass
class Stage:
    """A system in a folder, and what its image says. user: uid and gid."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    user: str = "0:0"
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


class Builder:
    """base: the folder that stands for every base image. context: what COPY takes from. arguments:
    --build-arg. variables: of RUN steps here alone. mounts: folders here that RUN steps see, by their path
    there."""

    def __init__(
        self,
        base: Path,
        context: Path,
        work: Path,
        arguments: dict[str, str],
        variables: dict[str, str],
        mounts: dict[str, Path],
    ) -> None:
        self._base = base
        self._context = context
        self._work = work
        self._given = arguments
        self._variables = variables
        self._mounts = mounts
        self._stages: dict[str, Stage] = {}
        self._global: dict[str, str] = {}
        self._arguments: dict[str, str] = {}

    def build(self, dockerfile: Path) -> Stage:
        """The last stage. Fails at an instruction that it does not know."""
        parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.read_bytes()))
        stage: Stage | None = None
        for each in parser.structure:
            instruction, value = each["instruction"], each["value"]
            if instruction == "COMMENT":
                continue
            if instruction == "FROM":
                stage = self._from(value)
            elif stage is None:
                assert instruction == "ARG", instruction
                self._argument(value, self._global)
            else:
                getattr(self, f"_{instruction.lower()}")(stage, value)
        assert stage is not None
        return stage

    def _from(self, value: str) -> Stage:
        _, _, name = value.partition(" AS ")
        root = self._work / (name or "final")
        subprocess.run(["cp", "--archive", str(self._base), str(root)], check=True)
        self._arguments = {}
        self._stages[name] = stage = Stage(root)
        return stage

    def _argument(self, value: str, into: dict[str, str]) -> None:
        name, _, default = value.partition("=")
        into[name] = self._given.get(name, default)

    def _arg(self, stage: Stage, value: str) -> None:
        self._argument(value, self._arguments)

    def _shell(self, stage: Stage, value: str) -> None:
        stage.shell = json.loads(value)

    def _workdir(self, stage: Stage, value: str) -> None:
        stage.folder = value
        (stage.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _user(self, stage: Stage, value: str) -> None:
        stage.user = value

    def _env(self, stage: Stage, value: str) -> None:
        for pair in shlex.split(value):
            name, _, content = pair.partition("=")
            stage.environment[name] = Template(content).substitute(stage.environment)

    def _expose(self, stage: Stage, value: str) -> None:
        assert value == "8080"

    def _entrypoint(self, stage: Stage, value: str) -> None:
        stage.entrypoint = json.loads(value)

    def _cmd(self, stage: Stage, value: str) -> None:
        stage.command = json.loads(value)

    def _healthcheck(self, stage: Stage, value: str) -> None:
        stage.health = json.loads(re.sub(r"^.*?CMD ", "", value))

    def _copy(self, stage: Stage, value: str) -> None:
        parts = shlex.split(value)
        source = self._context
        if parts[0].startswith("--from="):
            source = self._stages[parts.pop(0).removeprefix("--from=")].root
        *names, target = parts
        place = stage.root / os.path.join(stage.folder, target).lstrip("/")
        for name in names:
            found = source / name.lstrip("/")
            if not found.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, place)
            else:
                ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")  # .dockerignore
                ignore = ignored if source is self._context else None
                shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True, ignore=ignore)

    def _run(self, stage: Stage, value: str) -> None:
        mounts = []
        for there, here in self._mounts.items():
            target = stage.root / there.lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            mounts += [f"mount --bind {shlex.quote(str(here))} {shlex.quote(str(target))}"]
        script = "\n".join([*mounts, *_system(stage.root), 'exec "$@"'])
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
        }
        environment |= stage.environment | self._arguments | self._variables
        subprocess.run(isolated(script, _inside(stage, environment, [*stage.shell, value])), check=True)
        for there in self._mounts:
            (stage.root / there.lstrip("/")).rmdir()


class Container:
    """A stage's entry point, running with a network of its own, a read-only root and `volumes` (folders here,
    by their path there) to write to, as the chart runs it."""

    def __init__(self, stage: Stage, volumes: dict[str, Path], *arguments: str) -> None:
        self._stage = stage
        root = shlex.quote(str(stage.root))
        mounts = [f"mount --bind {root} {root}", f"mount -o remount,ro,bind {root}"]
        for there, here in volumes.items():
            mounts += [f"mount --bind {shlex.quote(str(here))} {root}{shlex.quote(there)}"]
        script = "\n".join(["ip link set lo up", *mounts, *_system(stage.root), 'exec "$@"'])
        self._unshare = subprocess.Popen(
            isolated(script, _inside(stage, stage.environment, [*stage.entrypoint, *arguments]), "--net"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        eventually(lambda: bool(psutil.Process(self._unshare.pid).children()), "a container")
        (self.process,) = psutil.Process(self._unshare.pid).children()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As `docker exec`."""
        return subprocess.run(
            [
                "nsenter",
                "--target",
                str(self.process.pid),
                "--mount",
                "--net",
                "--pid",
                *_inside(self._stage, self._stage.environment, command),
            ],
            check=check,
            capture_output=True,
            text=True,
        )

    def is_healthy(self) -> bool:
        return self.run(*self._stage.health, check=False).returncode == 0

    def stop(self) -> tuple[int, str]:
        """SIGTERM: the exit status, and everything that was printed."""
        self.process.terminate()
        output, _ = self._unshare.communicate(timeout=60)
        return self._unshare.returncode, output.decode()

    def kill(self) -> None:
        if self.process.is_running():
            self.process.kill()  # the first process of its namespace: the others end with it
        self._unshare.wait()
        if self._unshare.stdout is not None:
            self._unshare.stdout.close()


def isolated(script: str, command: Sequence[str], *namespaces: str) -> list[str]:
    """A command that bash runs as "$@" of `script`, with mounts and processes of its own, and further
    namespaces that `unshare` has options for. What it has started ends with it."""
    own = ("--mount", "--pid", "--fork", "--kill-child", *namespaces)
    return ["unshare", *own, "bash", "-euc", script, "-", *command]


def _system(root: Path) -> list[str]:
    """Commands for what every container has beside its image."""
    quoted = shlex.quote(str(root))
    return [f"mount -t proc proc {quoted}/proc", f"mount --rbind /dev {quoted}/dev"]


def _inside(stage: Stage, environment: dict[str, str], command: Sequence[str]) -> list[str]:
    pairs = [f"{name}={value}" for name, value in environment.items()]
    return [
        *("chroot", f"--userspec={stage.user}", str(stage.root)),
        *("/usr/bin/env", "--ignore-environment", *pairs),
        *("/bin/sh", "-c", 'cd "$1" && shift && exec "$@"', "-", stage.folder, *command),
    ]
