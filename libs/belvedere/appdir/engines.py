"""Container engines: what makes a root filesystem from a Dockerfile.

    engine = Buildah()
    if (problem := engine.problem()) is None:
        image = engine.build(context, dockerfile, "people-code", say)
        with engine.exported(image) as tar:                                # the root filesystem, as a tar stream
            ...

Both run as whoever called. buildah needs no daemon; as a plain user it works in a user namespace. Its RUN steps are in
a chroot rather than in a container of their own (BUILDAH_ISOLATION says otherwise): that needs no OCI runtime and no
network set-up, and works inside containers too. Every line of an engine's output goes to `say`; Ctrl-C ends a build,
which otherwise may take as long as it takes.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from belvedere.appdir.errors import EngineFailed

ANSWER_TIMEOUT_S = 20.0
"""For a question to an engine: docker's client waits long for a daemon that hangs."""
_LAST_LINES = 15
"""Of an engine's output, kept for the error."""
IMAGE_PREFIX = "belvedere"

_EXPORT_SCRIPT = r"""
set -euo pipefail
cd "$(buildah mount "$1")"
find . -mindepth 1 \( -path './dev/*' -o -path './proc/*' -o -path './sys/*' \) -prune \
    -o \( -type f -o -type d -o -type l \) -printf '%P\0' | LC_ALL=C sort -z |
    tar --create --file=- --no-recursion --numeric-owner --format=pax --pax-option=delete=atime,delete=ctime \
        --null --verbatim-files-from --files-from=-
"""
"""Sorted, and without access times: an unchanged image gives the same bytes. Devices and sockets have no place in it."""

Say = Callable[[str], None]


class Engine(ABC):
    """One kind of container engine."""

    name: str

    @abstractmethod
    def problem(self) -> str | None:
        """Why it can't be used here; None when it answers."""

    @abstractmethod
    def has(self, image: str) -> bool:
        """Whether the image is here, without asking any registry."""

    @abstractmethod
    def import_base(self, base: Path, image: str, say: Say) -> None:
        """Makes an image of a root filesystem: a folder, or a tar file, compressed or not."""

    @abstractmethod
    def build(self, context: Path, dockerfile: Path, name: str, say: Say) -> str:
        """Builds; the image's id. Raises EngineFailed."""

    @abstractmethod
    def exported(self, image: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """The image's root filesystem as a tar stream. Raises EngineFailed; reading raises it instead of saying that
        the stream ended where it was only cut."""

    def _run(self, command: Sequence[str], say: Say, stdin: IO[bytes] | None = None) -> None:
        last: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        with subprocess.Popen(
            command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                last.append(line)
                say(line)
        if process.returncode:
            raise EngineFailed(self.name, command, process.returncode, tuple(last))

    def _answer(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise EngineFailed(self.name, command, None, (f"no answer within {ANSWER_TIMEOUT_S:.0f} s",)) from None
        if done.returncode:
            raise EngineFailed(self.name, command, done.returncode, tuple(done.stderr.splitlines()[-_LAST_LINES:]))
        return done.stdout.strip()

    def _succeeds(self, command: Sequence[str]) -> bool:
        try:
            self._answer(command)
        except EngineFailed:
            return False
        return True

    def _built(self, command: Sequence[str], context: Path, say: Say) -> str:
        with tempfile.TemporaryDirectory(prefix="belvedere-build-") as folder:
            id_file = Path(folder) / "image"
            self._run([*command, "--iidfile", str(id_file), str(context)], say)
            return id_file.read_text().strip()

    @contextlib.contextmanager
    def _stream(self, command: Sequence[str]) -> Iterator[IO[bytes]]:
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process,
        ):

            def check() -> None:
                if process.wait():
                    errors.seek(0)
                    lines = errors.read().decode(errors="replace").splitlines()
                    raise EngineFailed(self.name, command, process.returncode, tuple(lines[-_LAST_LINES:]))

            try:
                yield cast("IO[bytes]", _Whole(process, check))
            except BaseException:
                process.kill()
                raise


class _Whole:
    """What a process writes: its end is told only once the process has ended well."""

    def __init__(self, process: subprocess.Popen[bytes], check: Callable[[], None]) -> None:
        assert process.stdout is not None
        self._output = process.stdout
        self._check = check

    def read(self, count: int) -> bytes:
        data = self._output.read(count)
        if not data:
            self._check()
        return data

    def fileno(self) -> int:
        return self._output.fileno()


class Docker(Engine):
    """docker, or what answers to its name, with an engine behind it."""

    name = "docker"

    def problem(self) -> str | None:
        if shutil.which("docker") is None:
            return "docker is not installed"
        try:
            self._answer(["docker", "version", "--format", "{{.Server.Version}}"])
        except EngineFailed as error:
            return f"docker is installed, but no engine answers it ({error.last_line})"
        return None

    def has(self, image: str) -> bool:
        return self._succeeds(["docker", "image", "inspect", image])

    def import_base(self, base: Path, image: str, say: Say) -> None:
        if base.is_file():
            self._run(["docker", "import", str(base), image], say)
            return
        with self._stream(["tar", "--create", "--file=-", "--numeric-owner", "--directory", str(base), "."]) as tar:
            self._run(["docker", "import", "-", image], say, stdin=tar)
            tar.read(1)  # nothing is left, or the stream was cut

    def build(self, context: Path, dockerfile: Path, name: str, say: Say) -> str:
        tag = f"{IMAGE_PREFIX}/{name}"
        return self._built(["docker", "build", "--file", str(dockerfile), "--tag", tag], context, say)

    @contextlib.contextmanager
    def exported(self, image: str) -> Iterator[IO[bytes]]:
        # The command is never run; an image without one of its own makes no container otherwise.
        container = self._answer(["docker", "create", image, "/bin/true"])
        try:
            with self._stream(["docker", "export", container]) as tar:
                yield tar
        finally:
            self._succeeds(["docker", "rm", container])


class Buildah(Engine):
    """buildah: no daemon, and no root where user namespaces are allowed."""

    name = "buildah"

    def problem(self) -> str | None:
        if shutil.which("buildah") is None:
            return "buildah is not installed"
        try:
            self._answer([*self._entering(), "buildah", "info"])
        except EngineFailed as error:
            return f"buildah is installed, but does not work here ({error.last_line})"
        return None

    def has(self, image: str) -> bool:
        return self._succeeds(["buildah", "inspect", "--type", "image", image])

    def import_base(self, base: Path, image: str, say: Say) -> None:
        container = self._answer(["buildah", "from", "scratch"])
        try:
            self._run(["buildah", "add" if base.is_file() else "copy", "--quiet", container, str(base), "/"], say)
            self._run(["buildah", "commit", "--quiet", container, image], say)
        finally:
            self._succeeds(["buildah", "rm", container])

    def build(self, context: Path, dockerfile: Path, name: str, say: Say) -> str:
        command = ["buildah", "bud", "--layers", "--pull=false", "--file", str(dockerfile)]
        command += ["--tag", f"localhost/{IMAGE_PREFIX}/{name}"]
        if "BUILDAH_ISOLATION" not in os.environ:
            command += ["--isolation", "chroot"]
        return self._built(command, context, say)

    @contextlib.contextmanager
    def exported(self, image: str) -> Iterator[IO[bytes]]:
        container = self._answer(["buildah", "from", "--pull=never", image])
        try:
            with self._stream([*self._entering(), "bash", "-c", _EXPORT_SCRIPT, "bash", container]) as tar:
                yield tar
        finally:
            self._succeeds(["buildah", "rm", container])

    @staticmethod
    def _entering() -> list[str]:
        """Files of a plain user's images belong to other users of the user namespace: they are read from inside it."""
        return [] if os.geteuid() == 0 else ["buildah", "unshare"]
