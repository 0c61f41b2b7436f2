"""Takes the model assets of a version: what is stored, which kind, converted or kept. One at a time: a conversion takes a
framework's memory.

    taken = await importer.take(digest, descriptor_text)     Taken(digest, size_bytes, descriptor, note)
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from belvedere import modelfile
from belvedere.blobs import BlobStore
from belvedere.chassis import logs
from belvedere.graph import ModelDescriptor, parse_descriptor
from belvedere.modelfile import FOR_APPLIANCES, ModelFileInvalid, ModelKind
from services.packages.models.convert import ModelRefused, convert
from services.packages.models.environments import FRAMEWORK, Environments

INSTALL = "belvedere models install"

log = logs.get_logger(__name__)


@dataclass(frozen=True)
class Taken:
    """What stands for a model asset from now on."""

    digest: str
    size_bytes: int
    descriptor: str
    note: str = ""
    """What was done with it, for the version's StatusDescription; empty where nothing was."""


class ModelImporter:
    """Reads, converts and stores."""

    def __init__(
        self, blobs: BlobStore, environments: Environments, timeout_s: float, work: Path | None = None
    ) -> None:
        """`work`: where models are unpacked for the time being; absent: the machine's folder for temporary files."""
        self._blobs, self._environments, self._timeout_s, self._work = blobs, environments, timeout_s, work
        self._one = asyncio.Lock()

    def key(self, digest: str, descriptor: str) -> str:
        """What an answer of `take` follows from: the same key, the same answer."""
        names = [environment.folder.name for environment in self._environments if environment.installed]
        return json.dumps([digest, descriptor, sorted(names)])

    async def take(self, digest: str, size_bytes: int, descriptor_text: str) -> Taken:
        """A model asset, whose descriptor is valid. Raises ModelRefused."""
        descriptor = parse_descriptor(descriptor_text)
        assert isinstance(descriptor, ModelDescriptor), "the reader has checked it"
        async with self._one:
            work = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="belvedere-model-", dir=self._work))
            try:
                return await self._take(digest, size_bytes, descriptor_text, descriptor, work)
            finally:
                await asyncio.to_thread(shutil.rmtree, work)

    async def _take(self, digest: str, size_bytes: int, text: str, descriptor: ModelDescriptor, work: Path) -> Taken:
        kept = Taken(digest, size_bytes, text)
        asset = work / "asset"
        with asset.open("wb") as file:
            async for chunk in self._blobs.open(digest):
                await asyncio.to_thread(file.write, chunk)
        try:
            model = await asyncio.to_thread(modelfile.find, asset, work / "source")
        except ModelFileInvalid as error:
            raise ModelRefused(str(error)) from error
        if model.kind == ModelKind.TORCH_PICKLE:
            raise ModelRefused(
                "this is a pickled PyTorch module or its weights, without the code they belong to; save the model with "
                "torch.jit.trace(model, example).save(…) and register that"
            )
        environment = self._environments.of(model.kind)
        if environment is None:
            if model.kind in FOR_APPLIANCES:
                return kept
            raise ModelRefused(
                f"{model.kind} models are converted here, and the environment for that is not installed on the cloud "
                f"side: {INSTALL} {FRAMEWORK[model.kind]} --data DIR"
            )
        try:
            converted = await convert(model, descriptor, environment, work, self._timeout_s)
        except ModelRefused as error:
            if model.kind in FOR_APPLIANCES and model.kind != ModelKind.ONNX:
                # Appliances have readers of their own for it, which know operators that ONNX does not.
                log.info("a model stays in its own format", kind=model.kind.value, why=str(error))
                return Taken(digest, size_bytes, text, f"{model.kind}, kept as it is ({error})")
            raise
        same = f"largest difference {converted.difference:.1e} on random input"
        if converted.path is None:
            return Taken(digest, size_bytes, text, f"{model.kind}, {converted.operators} operators, runs")
        blob = await self._blobs.put_file(converted.path)
        log.info(
            "a model was converted",
            kind=model.kind.value,
            operators=converted.operators,
            difference=converted.difference,
        )
        return Taken(blob.digest, blob.size_bytes, as_onnx(text), f"{model.kind} converted to ONNX, {same}")


def as_onnx(descriptor_text: str) -> str:
    """The descriptor of the model that was converted: the same inputs and precision, another framework."""
    document = json.loads(descriptor_text)
    document["mlModelDescriptor"]["framework"] = "ONNX"
    document["mlModelDescriptor"].pop("frameworkVersion", None)
    return json.dumps(document)
