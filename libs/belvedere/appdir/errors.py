"""What can be wrong with an application folder.

AppFolderError
├─ NotAnAppFolder        the folder lacks `graphs`, `packages` or a graph document
├─ PackageNotFound       no package of that name in `packages`
├─ DocumentInvalid       a JSON document can't be read, or lacks what packaging needs
├─ AssetMissing          a file that a package names is not in `assets`, or a file to package is not there
├─ BaseInvalid           what should stand for AWS's base image is neither an image's name nor a root filesystem
├─ OverrideInvalid       a choice for a node that the graph does not have, or a value that is not of its type
├─ EngineFailed          a container engine did not do what it was asked
├─ FolderInvalid         everything that is wrong in the folder's documents and sources, each with its file and place
├─ EngineMissing         the container engine that was asked for can't be used here
└─ NeedsContainerBuild   the Dockerfile asks for more than copying `src`: only a container engine can make that archive
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class AppFolderError(Exception):
    """Base of every error of this package. The message says what is wrong and what to do."""


class NotAnAppFolder(AppFolderError):
    """The folder is not in the layout of AWS's tools."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path} is not an application folder: {problem}. Such a folder holds graphs/<name>/graph.json, "
            "packages/<account>-<NAME>-<version>/package.json and assets/"
        )
        self.path = path


class PackageNotFound(AppFolderError):
    """No package of that name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f'no package "{name}" in packages/; there are: {", ".join(known) or "none"}')
        self.name = name
        self.known = known


class DocumentInvalid(AppFolderError):
    """A document can't be used; `place` is where in it."""

    def __init__(self, path: Path, place: str, problem: str) -> None:
        super().__init__(f"{path}: {place}: {problem}" if place else f"{path}: {problem}")
        self.path = path
        self.place = place


@dataclass(frozen=True)
class FolderProblem:
    """One thing that is wrong."""

    path: Path
    place: str
    """`nodes[2].interface`, `line 12`; empty for the whole file."""
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.path), self.place, self.message) if part)


class FolderInvalid(AppFolderError):
    """The folder gives nothing that can run: every problem of it."""

    def __init__(self, problems: Sequence[FolderProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class AssetMissing(AppFolderError):
    """A file that should be there is not."""

    def __init__(self, path: Path, needed_by: str, remedy: str) -> None:
        super().__init__(f"{needed_by} needs {path}, which is not there: {remedy}")
        self.path = path


class BaseInvalid(AppFolderError):
    """It can't stand for AWS's base image."""

    def __init__(self, base: str, problem: str) -> None:
        super().__init__(
            f"`{base}` can't be the base: {problem}. A base is an image's name (docker.io/library/python:3.11-slim), a "
            "root filesystem as a tar file, or a folder with one"
        )
        self.base = base


class OverrideInvalid(AppFolderError):
    """What was chosen for a node can't be."""

    def __init__(self, node: str, problem: str) -> None:
        super().__init__(f"override of {node}: {problem}" if node else problem)
        self.node = node


class EngineFailed(AppFolderError):
    """Its exit status, and the last lines that it said."""

    def __init__(self, engine: str, command: Sequence[str], status: int | None, lines: tuple[str, ...]) -> None:
        said = "".join(f"\n    {line}" for line in lines if line)
        how = "did not answer" if status is None else f"ended with status {status}"
        super().__init__(f"{engine}: `{' '.join(command[:2])} …` {how}{':' if said else ''}{said}")
        self.engine = engine
        self.status = status
        self.lines = lines

    @property
    def last_line(self) -> str:
        """The last thing it said."""
        return next((line.strip() for line in reversed(self.lines) if line.strip()), f"exit status {self.status}")


class EngineMissing(AppFolderError):
    """It is not installed, or does not answer."""

    def __init__(self, engine: str, problem: str) -> None:
        super().__init__(f"{problem}: {_INSTALL[engine]}")
        self.engine = engine


class NeedsContainerBuild(AppFolderError):
    """The Dockerfile has an instruction that copying `src` does not cover, and no engine is here."""

    def __init__(self, dockerfile: Path, line: int, instruction: str, engines: Sequence[str] = ()) -> None:
        here = f"; {', and '.join(engines)}" if engines else ""
        super().__init__(
            f"{dockerfile}:{line}: `{instruction}` needs a container engine{here}. {_INSTALL['buildah']}; or move what "
            "it installs into src/, and leave only `FROM public.ecr.aws/panorama/panorama-application` and "
            "`COPY src /panorama` in the Dockerfile"
        )
        self.dockerfile = dockerfile
        self.line = line


_INSTALL = {
    "buildah": "install buildah (`sudo apt-get install buildah`; it needs no daemon, and no root to build)",
    "docker": "install and start it, and make your user one who may use it",
}
