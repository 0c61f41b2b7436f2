"""Reads a package version from storage and says what it holds, or everything that is wrong with it.

Must not know the API: it gives a `Registration` to whoever asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from belvedere.blobs import BlobStore
from belvedere.chassis import logs
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid
from belvedere.chunks import ArchiveInvalid, Kind, parcel
from belvedere.graph import DocumentInvalid, ModelDescriptor, PackageDocument, parse_descriptor, parse_package
from services.packages import objects, rules
from services.packages.chunking import Chunker
from services.packages.models.convert import ModelRefused
from services.packages.models.importer import ModelImporter, Taken
from services.packages.objects import ObjectRow
from services.packages.store import TakenModelRow

log = logs.get_logger(__name__)

PARCEL = "parcel"
"""Of an asset that is being read: it came as a parcel."""


@dataclass(frozen=True)
class Registration:
    """What was found."""

    document: PackageDocument | None = None
    document_text: str = ""
    """The package document without a camera's credentials."""
    assets: list[dict[str, Any]] = field(default_factory=list)
    camera: rules.CameraAddress | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What was done with its models, for the status."""


class Reader:
    """Reads documents out of the bucket of one account and region."""

    def __init__(self, database: Database, blobs: BlobStore, limit_bytes: int, models: ModelImporter) -> None:
        self._database = database
        self.blobs = blobs
        self.limit_bytes = limit_bytes
        self._models = models
        self._chunker = Chunker(blobs)

    async def read(
        self,
        account: str,
        region: str,
        package: str,
        version: str,
        patch: str,
        *,
        staged: Mapping[str, ObjectRow] | None = None,
    ) -> Registration:
        """The package version, checked: document, descriptors, that every asset is stored, its models as appliances can
        load them, and everything cut into what appliances fetch. Conversions may take minutes.

        `staged`: objects by key that are about to be stored and are taken as if they were.
        """
        found = await _Reading(self._database, self.blobs, self.limit_bytes, staged or {}).read(
            account, region, package, version, patch
        )
        found = await self._renew_originals(found)
        for prepare in (self._take_models, self._cut):
            if not found.problems:
                found = await prepare(found)
        return found

    async def _renew_originals(self, found: Registration) -> Registration:
        """What is stored stays readable until the end, whoever deletes the objects meanwhile."""
        gone = [
            f"{asset['name']}: its bytes are not stored any more: store it again"
            for asset in found.assets
            if asset["digest"] and not await self.blobs.renew(asset["digest"])
        ]
        return replace(found, problems=(*found.problems, *gone))

    async def renew(self, assets: Iterable[Mapping[str, Any]]) -> None:
        """Of registered assets whose names are about to go: whoever has just read them has time to name them, too."""
        for asset in assets:
            if asset["descriptor"] and not await self._chunker.renew(asset["digest"]):
                log.warning("an asset is not whole in the store", asset=asset["name"], digest=asset["digest"])

    async def _cut(self, found: Registration) -> Registration:
        """From here on, an asset's digest is its root's (`belvedere.chunks`): what appliances fetch."""
        assets: list[dict[str, Any]] = []
        problems: list[str] = []
        for asset in map(dict, found.assets):
            if asset["descriptor"]:
                try:
                    kind = Kind.FILE if asset["type"] == "model" else Kind.TREE
                    is_parcel = bool(asset.pop(PARCEL, False))
                    asset = asset | {"digest": await self._chunker.root(asset["digest"], kind, parcel=is_parcel)}
                except ArchiveInvalid as error:
                    problems.append(f"{asset['name']}: {error}")
            assets.append(asset)
        return replace(found, assets=assets, problems=tuple(problems))

    async def _take_models(self, found: Registration) -> Registration:
        assets: list[dict[str, Any]] = []
        problems: list[str] = []
        notes: list[str] = []
        for asset in found.assets:
            if asset["type"] == "model" and asset["descriptor"]:
                try:
                    taken = await self._take(asset["digest"], asset["size_bytes"], asset["descriptor"])
                except ModelRefused as error:
                    problems.append(f"{asset['name']}: {error}")
                    continue
                asset = asset | {
                    "digest": taken.digest, "size_bytes": taken.size_bytes, "descriptor": taken.descriptor
                }  # fmt: skip
                notes += [f"{asset['name']}: {taken.note}"] if taken.note else []
            assets.append(asset)
        return replace(found, assets=assets, problems=tuple(problems), notes=tuple(notes))

    async def _take(self, digest: str, size_bytes: int, descriptor: str) -> Taken:
        key = hashlib.sha256(self._models.key(digest, descriptor).encode()).hexdigest()
        async with self._database.session(read_only=True) as session:
            row = await session.get(TakenModelRow, key)
        if row is not None and await self.blobs.renew(row.digest):
            return Taken(row.digest, row.size_bytes, row.descriptor, row.note)
        taken = await self._models.take(digest, size_bytes, descriptor)
        async with self._database.session() as session, session.begin():
            await session.merge(
                TakenModelRow(
                    key=key,
                    digest=taken.digest,
                    size_bytes=taken.size_bytes,
                    descriptor=taken.descriptor,
                    note=taken.note,
                )
            )
        return taken


class _Reading:
    """One reading of one version."""

    def __init__(self, database: Database, blobs: BlobStore, limit_bytes: int, staged: Mapping[str, ObjectRow]) -> None:
        self._database, self._blobs, self._limit, self._staged = database, blobs, limit_bytes, staged

    async def read(self, account: str, region: str, package: str, version: str, patch: str) -> Registration:
        problems: list[str] = []
        key = rules.manifest_key(account, package, version, patch)
        raw = await self._document(account, region, key, problems)
        document = None
        if raw is not None:
            try:
                document = parse_package(raw)
            except DocumentInvalid as error:
                problems += [str(problem) for problem in error.problems]
        if document is None or raw is None:
            return Registration(problems=tuple(problems))
        if document.version and document.version != version:
            problems.append(f"version: the document says {document.version}, it is registered as {version}")
        assets = await self._assets(account, region, package, document, problems)
        camera = None
        try:
            camera = rules.document_camera(document)
        except Invalid as error:
            problems += [f"streamUrl: {text}" for _, text in error.fields]
        return Registration(document, without_credentials(raw, camera), assets, camera, tuple(problems))

    async def _assets(
        self, account: str, region: str, package: str, document: PackageDocument, problems: list[str]
    ) -> list[dict[str, Any]]:
        used = {interface.asset for interface in document.interfaces}
        found: list[dict[str, Any]] = []
        for index, asset in enumerate(document.assets):
            for number, item in enumerate(asset.implementations):
                place = f"assets[{index}].implementations[{number}]"
                row = {"name": asset.name, "type": item.type, "digest": "", "size_bytes": 0, "descriptor": ""}
                if item.type == "system":
                    found.append(row)
                    continue
                key = rules.binary_key(account, package, item.asset_uri)
                stored = await self._stored(account, region, key)
                if stored is None and item.type == "container":
                    stored = await self._stored(account, region, key + parcel.SUFFIX)
                if stored is None:
                    # Left over from a template or an earlier build: no harm as long as nothing is made of it.
                    if asset.name in used:
                        problems.append(f'{place}.assetUri: "{item.asset_uri}" is not stored among the binaries')
                    continue
                row |= {"digest": stored.digest, "size_bytes": stored.size_bytes}
                if stored.key.endswith(parcel.SUFFIX):
                    row[PARCEL] = True
                if asset.name in used:
                    row["descriptor"] = await self._descriptor(
                        account, region, package, item.descriptor_uri, item.type, f"{place}.descriptorUri", problems
                    )
                found.append(row)
        return found

    async def _descriptor(
        self, account: str, region: str, package: str, uri: str, type: str, place: str, problems: list[str]
    ) -> str:
        if not uri:
            problems.append(f"{place}: is missing: a {type} needs a descriptor")
            return ""
        inner: list[str] = []
        raw = await self._document(account, region, rules.binary_key(account, package, uri), inner)
        if raw is not None:
            try:
                descriptor = parse_descriptor(raw)
                if isinstance(descriptor, ModelDescriptor) != (type == "model"):
                    inner.append(f"this is not the kind of descriptor that a {type} has")
            except DocumentInvalid as error:
                inner += [str(problem) for problem in error.problems]
        problems += [f"{place}: {text}" for text in inner]
        return "" if inner or raw is None else raw

    async def _document(self, account: str, region: str, key: str, problems: list[str]) -> str | None:
        stored = await self._stored(account, region, key)
        if stored is None:
            problems.append(f"nothing is stored at {key}")
            return None
        if stored.size_bytes > self._limit:
            problems.append(f"{key} has {stored.size_bytes} bytes, at most {self._limit} are read")
            return None
        raw = await self._blobs.read(stored.digest)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            problems.append(f"{key} is not UTF-8 text")
            return None

    async def _stored(self, account: str, region: str, key: str) -> ObjectRow | None:
        if key in self._staged:
            return self._staged[key]
        async with self._database.session(read_only=True) as session:
            return await objects.find_object(session, account, region, rules.bucket_name(account, region), key)


def without_credentials(text: str, camera: rules.CameraAddress | None) -> str:
    """The package document, with user name, password and what the address held of them taken out."""
    if camera is None:
        return text
    document = json.loads(text)
    for interface in document["nodePackage"]["interfaces"]:
        for port in interface.get("inputs") or []:
            if interface.get("category") != "media_source":
                continue
            if port["name"] in ("username", "password"):
                port.pop("default", None)
            elif port["name"] == "streamUrl":
                port["default"] = camera.stream_url
    return json.dumps(document)
