"""The appliance's store of assets by digest: only what is missing is fetched, verified before anybody sees it, resumed
after a cut, kept up to a limit.

    sha256/<hex>     what is ready for use: a graph or a model (a file), a root filesystem (a folder); complete or absent
    roots/<hex>      what an asset is made of; its time is when the asset was last wanted
    indexes/<hex>    the index of a tree
    objects/         contents, each once (`content`): what is in sha256/ are links to them

Knows nothing of applications.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from belvedere.chassis.logs import get_logger
from belvedere.chunks import AssetRoot, DocumentInvalid, Entry, Kind, decode_index
from edge.agent.content import ContentStore, Damaged, Item, object_of, object_of_entry
from edge.agent.errors import AssetError
from edge.agent.source import Download, Source

log = get_logger(__name__)

ALGORITHM = "sha256:"
HEX_LENGTH = 64
RESERVE_BYTES = 64 << 20
"""Of the disk, left to everything else that the appliance writes."""
TRIES = 3
"""Of putting an asset together, each time without the files that were found damaged."""


class AssetStore:
    """Assets below one folder, with a limit on what is kept that nobody uses."""

    def __init__(self, root: Path, *, limit_bytes: int, base_url: str, ca_file: Path, sign: Callable[[str, str], str]):
        self._root = root
        self._ready, self._roots = root / "sha256", root / "roots"
        for folder in (self._ready, self._roots, root / "indexes"):
            folder.mkdir(parents=True, exist_ok=True)
        self._limit_bytes = limit_bytes
        self._source = Source(base_url, ca_file, sign)
        self._content = ContentStore(root)
        self._learned = False
        self._building = 0
        self._unswept = True
        self.in_use: Callable[[], Collection[str]] = tuple
        """Digests that are not to be removed for the sake of space."""

    @property
    def fetched_bytes(self) -> int:
        """That came over the network since the start."""
        return self._source.fetched_bytes

    def path(self, digest: str) -> Path:
        """Where the asset of `digest` ("sha256:<64 hex>") stands, or would: a file, or a tree's folder."""
        algorithm, _, hexdigits = digest.partition(":")
        if algorithm != "sha256" or len(hexdigits) != HEX_LENGTH or any(c not in "0123456789abcdef" for c in hexdigits):
            raise AssetError(digest, f"not a digest: {digest!r}; expected sha256:<64 hex digits>", invalid=True)
        return self._ready / hexdigits

    def verified(self) -> frozenset[str]:
        """The digests that are here."""
        return frozenset(ALGORITHM + entry.name for entry in self._ready.iterdir() if len(entry.name) == HEX_LENGTH)

    async def fetch_document(self, digest: str) -> Path:
        """Brings a small file that is fetched whole: a graph.

        Raises AssetError: unreachable, refused, no space, or (invalid=True) not what the digest says.
        """
        final = self.path(digest)
        if not final.exists():
            try:
                async with self._source.connect() as download:
                    data = await download.document(digest)
                await asyncio.to_thread(_write, final, data)
            except OSError as error:
                raise _no_disk(digest, error) from error
        return final

    async def fetch(self, digest: str) -> Path:
        """Brings an asset here: what of it is not here yet. Raises as `fetch_document`."""
        final = self.path(digest)
        if final.exists():
            self._wanted_now(final.name)
            return final
        self._building += 1
        try:
            async with self._source.connect() as download:
                await self._assemble(download, digest, final)
        except DocumentInvalid as error:
            raise AssetError(digest, f"asset {digest[:19]}… can't be used: {error}", invalid=True) from error
        except OSError as error:
            raise _no_disk(digest, error) from error
        finally:
            self._building -= 1
        return final

    async def _assemble(self, download: Download, digest: str, final: Path) -> None:
        text = await download.document(digest)
        root = AssetRoot.from_json(text)
        if not self._learned:
            await asyncio.to_thread(self._learn)
        for _ in range(TRIES):
            try:
                entries: Sequence[Entry] = ()
                if root.kind is Kind.TREE:
                    index = self._index(final.name, root)
                    await self._bring(download, digest, [index])
                    entries = await asyncio.to_thread(self._entries, index)
                    items = [object_of_entry(entry) for entry in entries if entry.type == "f"]
                else:
                    items = [object_of(root.chunks)]
                await self._bring(download, digest, items)
                await asyncio.to_thread(self._make, final, root.kind, entries, items)
                break
            except Damaged as damaged:
                log.warning("a file of the asset store is damaged; it is fetched again", path=damaged.path)
                await asyncio.to_thread(self._content.forget, damaged.path)
        else:
            raise AssetError(digest, f"asset {digest[:19]}…: the appliance's disk does not keep what is written to it")
        await asyncio.to_thread(_write, self._roots / final.name, text)

    async def _bring(self, download: Download, digest: str, items: Sequence[Item]) -> None:
        tag = digest.removeprefix(ALGORITHM)[:16]
        need = await asyncio.to_thread(self._content.need, items, tag)
        if not need.items:
            return
        if self._lacks(need.new_bytes):
            await asyncio.to_thread(self._make_room, digest, need.new_bytes)
            need = await asyncio.to_thread(self._content.need, items, tag)
        build = self._content.build(need.items, tag)
        async for contents in download.chunks(digest, need.wanted):
            await asyncio.to_thread(build.feed, contents)
        await asyncio.to_thread(build.finish)

    def _index(self, name: str, root: AssetRoot) -> Item:
        return Item(f"indexes/{name}", root.chunks)

    def _entries(self, index: Item) -> list[Entry]:
        with (self._root / index.path).open("rb") as lines:
            return list(decode_index(lines))

    def _make(self, final: Path, kind: Kind, entries: Sequence[Entry], items: Sequence[Item]) -> None:
        """What is ready for use, of links to contents. Raises Damaged where one has gone."""
        part = final.with_name(f".{final.name}")
        _remove(part)
        if kind is Kind.FILE:
            self._link(items[0].path, str(part))
        else:
            part.mkdir()
            contents = iter(items)
            base = f"{part}/"
            for entry in entries:
                if entry.type == "d":
                    Path(base + entry.path).mkdir()
                elif entry.type == "l":
                    Path(base + entry.path).symlink_to(entry.target)
                else:
                    self._link(next(contents).path, base + entry.path)
            for entry in entries:
                if entry.type == "d":
                    Path(base + entry.path).chmod((entry.mode & 0o755) | 0o700)
        part.rename(final)

    def _link(self, content: str, path: str) -> None:
        source = f"{self._root}/{content}"
        try:
            os.link(source, path)
        except FileNotFoundError as error:
            raise Damaged(content) from error
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            shutil.copy2(source, path)  # so many files are the same (and empty, most likely) that it has no more links

    # -- what is here -----------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """What earlier runs have left: where each chunk lies."""
        for _, items in self._made_of():
            for item in items:
                self._content.learn(item)
        self._learned = True

    def _made_of(self) -> Iterator[tuple[str, list[Item]]]:
        """(hex digits, all files) of each asset."""
        for file in sorted(self._roots.iterdir()):
            try:
                root = AssetRoot.from_json(file.read_bytes())
                if root.kind is Kind.FILE:
                    yield file.name, [object_of(root.chunks)]
                    continue
                index = self._index(file.name, root)
                objects = [object_of_entry(entry) for entry in self._entries(index) if entry.type == "f"]
                yield file.name, [index, *objects]
            except (DocumentInvalid, FileNotFoundError) as error:
                log.warning("what an asset is made of can't be read; it is fetched again", reason=str(error))
                self._forget(file.name)

    def check(self) -> list[str]:
        """Reads everything and removes the assets of which something is damaged; their digests. They are to be fetched
        again. Blocking, for long."""
        gone, good, bad = [], set[str](), set[str]()
        for name, items in self._made_of():
            for item in items:
                if item.path in good or item.path in bad:
                    continue
                try:
                    self._content.check(item)
                    good.add(item.path)
                except Damaged:
                    bad.add(item.path)
                    self._content.forget(item.path)
            if not bad.isdisjoint(item.path for item in items):
                log.error("an asset is damaged on the disk; it is fetched again", digest=name)
                self._forget(name)
                gone.append(ALGORITHM + name)
        return gone

    def _wanted_now(self, name: str) -> None:
        marker = self._roots / name
        if marker.exists():
            os.utime(marker)

    # -- space ------------------------------------------------------------------------------------------------------

    def trim(self, keep: Collection[str]) -> list[str]:
        """Removes the assets longest unused, beyond the limit, that are not in `keep`; returns their digests. Looks only
        after `changed`, and not while something is on its way: what came of it is kept."""
        if not self._unswept or self._building or any(not self.path(digest).exists() for digest in keep):
            return []
        self._unswept = False
        return self._evict(keep, lambda: self._used_bytes() > self._limit_bytes)

    def changed(self) -> None:
        """Something is wanted no more, or has come: the next `trim` looks."""
        self._unswept = True

    def _lacks(self, size: int) -> bool:
        return self._free_bytes() < size + RESERVE_BYTES

    def _make_room(self, digest: str, size: int) -> None:
        """Sees to `size` bytes of free disk: removes what nobody uses. Raises AssetError."""
        if self._building == 1:
            self._evict({*self.in_use(), digest}, lambda: self._lacks(size))
            self._learn()
        if self._lacks(size):
            raise AssetError(
                digest,
                f"asset {digest[:19]}… needs {size >> 20} MB, and the appliance's disk has {self._free_bytes() >> 20} MB "
                f"free ({RESERVE_BYTES >> 20} of them stay so): remove applications or files from it",
            )

    def _evict(self, keep: Collection[str], while_true: Callable[[], bool]) -> list[str]:
        kept = {digest.removeprefix(ALGORITHM) for digest in keep}
        found = [entry for entry in self._ready.iterdir() if len(entry.name) == HEX_LENGTH and entry.name not in kept]
        removed = []
        for entry in sorted(found, key=self._last_wanted):
            if not while_true():
                break
            self._forget(entry.name)
            self._content.sweep()
            self._learned = False
            removed.append(ALGORITHM + entry.name)
        if removed:
            log.info("assets removed from the cache", count=len(removed))
        return removed

    def _last_wanted(self, ready: Path) -> float:
        marker = self._roots / ready.name
        return (marker if marker.exists() else ready).lstat().st_mtime

    def _used_bytes(self) -> int:
        alone = (entry.lstat() for entry in self._ready.iterdir() if entry.is_file())
        return self._content.size() + sum(found.st_size for found in alone if found.st_nlink == 1)

    def _free_bytes(self) -> int:
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def _forget(self, name: str) -> None:
        going = self._ready / f".gone-{name}"
        _remove(going)
        if (self._ready / name).exists():
            (self._ready / name).rename(going)
            _remove(going)
        self._content.forget(f"indexes/{name}")
        (self._roots / name).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}")
    with part.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _no_disk(digest: str, error: OSError) -> AssetError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = "no space is left on the appliance's disk: remove applications or files from it"
    else:
        text = f"the appliance's disk does not take it: {error}"
    return AssetError(digest, f"asset {digest[:19]}…: {text}")
