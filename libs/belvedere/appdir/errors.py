"""What can be wrong with an application folder.

AppFolderError
├─ NotAnAppFolder        the folder lacks `graphs`, `packages` or a graph document
├─ PackageNotFound       no package of that name in `packages`
├─ DocumentInvalid       a JSON document can't be read, or lacks what packaging needs
├─ AssetMissing          a file that a package names is not in `assets`, or a file to package is not there
└─ NeedsContainerBuild   the Dockerfile asks for more than copying `src`: only a container engine can make that archive
"""

from __future__ import annotations

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


class AssetMissing(AppFolderError):
    """A file that should be there is not."""

    def __init__(self, path: Path, needed_by: str, remedy: str) -> None:
        super().__init__(f"{needed_by} needs {path}, which is not there: {remedy}")
        self.path = path


class NeedsContainerBuild(AppFolderError):
    """The Dockerfile has an instruction that copying `src` does not cover."""

    def __init__(self, dockerfile: Path, line: int, instruction: str) -> None:
        super().__init__(
            f"{dockerfile}:{line}: `{instruction}` needs a container engine. Without one, a package can be made whose "
            "Dockerfile says only `FROM public.ecr.aws/panorama/panorama-application` and `COPY src /panorama`: "
            "build this one with `panorama-cli build-container`, or move what it installs into src/"
        )
        self.dockerfile = dockerfile
        self.line = line
