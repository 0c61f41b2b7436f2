"""The Python environments of the frameworks: what is in them, where they lie, installing one.

    Environments(data / "model-import").of(kind) -> Environment | None      the one that is installed for a kind of model
    Environment.install()                                                   blocks for minutes: pip

They are never part of Belvedere's own environment: the frameworks can't live in one together, and are large (0.2 to 1.7 GB).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from belvedere.modelfile import ModelKind

INSTALL_TIMEOUT_S = 3600.0
"""For pip to fetch and install one environment."""

REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "onnx": ("onnx==1.19.0", "onnxruntime==1.23.0", "numpy<3"),
    "pytorch": ("torch==2.13.0", "onnx==1.19.0", "onnxruntime==1.23.0", "numpy<3"),
    "tensorflow": ("tensorflow-cpu==2.21.0", "tf2onnx==1.17.0", "onnx==1.23.2", "onnxruntime==1.31.1", "numpy<3"),
    "mxnet": ("mxnet==1.9.1", "numpy==1.23.5", "onnx==1.16.2", "protobuf<5", "onnxruntime==1.18.1"),
}
"""By framework. MXNet's last release wants an old numpy and an old ONNX; TensorFlow and PyTorch get what was tried with them."""

FRAMEWORK: Mapping[ModelKind, str] = {
    ModelKind.ONNX: "onnx",
    ModelKind.TORCHSCRIPT: "pytorch",
    ModelKind.TENSORFLOW_GRAPH: "tensorflow",
    ModelKind.TENSORFLOW_SAVED_MODEL: "tensorflow",
    ModelKind.KERAS: "tensorflow",
    ModelKind.TFLITE: "tensorflow",
    ModelKind.MXNET: "mxnet",
}


class InstallFailed(Exception):
    """pip could not make the environment; the message is what it said."""


@dataclass(frozen=True)
class Environment:
    """One framework's."""

    framework: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def installed(self) -> bool:
        """Whether it is complete: the mark is written last."""
        return self._mark.is_file()

    @property
    def _mark(self) -> Path:
        return self.folder / "belvedere-complete"

    def install(self) -> None:
        """Makes it anew. Blocks, for minutes. Raises InstallFailed; what was half made is removed."""
        self.remove()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            # From the interpreter that the present environment was made of: sandboxes are given that one's folder.
            venv.create(self.folder, with_pip=True, symlinks=True)
            command = [
                str(self.python),
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-cache-dir",
                "--quiet",
            ]
            done = subprocess.run(
                [*command, *REQUIREMENTS[self.framework]],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                stderr=subprocess.PIPE,
                text=True,
                timeout=INSTALL_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.remove()
            raise InstallFailed(f"the environment for {self.framework} can not be made: {error}") from error
        if done.returncode:
            self.remove()
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise InstallFailed(
                f"pip can not install {self.framework}: {' '.join(lines)[:500] or 'it ended with ' + str(done.returncode)}"
            )
        self._mark.write_text("\n".join(REQUIREMENTS[self.framework]) + "\n")

    def remove(self) -> None:
        """Takes it away, if it is there."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


class Environments:
    """All of a data folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __iter__(self) -> Iterator[Environment]:
        return iter([self.named(framework) for framework in REQUIREMENTS])

    def named(self, framework: str) -> Environment:
        """The framework's, installed or not. Other requirements are another environment."""
        key = hashlib.sha256("\n".join(REQUIREMENTS[framework]).encode()).hexdigest()[:8]
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return Environment(framework, self.root / f"{framework}-py{version}-{key}")

    def of(self, kind: ModelKind) -> Environment | None:
        """The installed one that can read this kind of model."""
        framework = FRAMEWORK.get(kind)
        environment = self.named(framework) if framework else None
        return environment if environment is not None and environment.installed else None


def root(data: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a data folder has them; BELVEDERE_MODEL_IMPORT names a folder that several share."""
    shared = environ.get("BELVEDERE_MODEL_IMPORT")
    return Path(shared) if shared else data / "model-import"
