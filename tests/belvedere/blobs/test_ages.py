"""What is renewed is not taken away, in every store."""

from __future__ import annotations

import abc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from belvedere.blobs import Amount, BlobStore, ages
from belvedere.blobs.ages import Stored

OLD_S = 2 * 86400
KEY = "chunks/ab/key"


def now() -> datetime:
    return datetime.now(UTC)


class Contract(abc.ABC):
    """Of every store."""

    @abc.abstractmethod
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        """The store under test."""

    def put(self, blobs: BlobStore, data: bytes) -> Stored:
        obstore.put(blobs._store, KEY, data)
        ((item,),) = list(blobs.ages.listed("chunks/ab"))
        return item

    def test_only_what_is_old_now_is_taken_away(self, blobs: BlobStore) -> None:
        item = self.put(blobs, b"x" * 100)
        assert blobs.ages.discard([item], now() - timedelta(hours=1)) == Amount()
        assert blobs.ages.discard([item], now() + timedelta(hours=1)) == Amount(1, 100)
        assert blobs.ages.discard([item], now() + timedelta(hours=1)) == Amount()
        assert list(blobs.ages.listed("chunks/ab")) == []

    def test_what_is_renewed_is_whole_and_young(self, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not blobs.ages.renew(KEY)
        before = self.put(blobs, b"y" * 6_000_000)
        assert blobs.ages.renew(KEY)
        monkeypatch.setattr(ages, "RENEW_AGE", timedelta())
        modified = before.modified
        while modified <= before.modified:  # until the store's clock has ticked; never, where nothing is renewed
            assert blobs.ages.renew(KEY)
            ((after,),) = list(blobs.ages.listed("chunks/ab"))
            modified = after.modified
        assert bytes(obstore.get(blobs._store, KEY).bytes()) == b"y" * 6_000_000


class TestMemory(Contract):
    """An object store that is no folder."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return BlobStore(MemoryStore())


class TestFolder(Contract):
    """A folder."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return BlobStore.at(tmp_path)

    async def test_equal_bytes_that_come_again_are_young_again(self, blobs: BlobStore, tmp_path: Path) -> None:
        digest = (await blobs.put_bytes(b"again")).digest
        (path,) = (tmp_path / "sha256").rglob(digest.removeprefix("sha256:"))
        for come_again in (blobs.put_bytes(b"again"), blobs.renew(digest)):
            os.utime(path, (time.time() - OLD_S,) * 2)
            await come_again
            assert path.stat().st_mtime > time.time() - 60

    def test_of_a_renewal_and_an_end_at_the_same_moment_the_renewal_knows_how_it_went(
        self, blobs: BlobStore, tmp_path: Path
    ) -> None:
        item, outcomes = self.put(blobs, b"z"), set[bool]()
        with ThreadPoolExecutor(2) as pool:
            for _ in range(200):
                self.put(blobs, b"z")
                os.utime(tmp_path / KEY, (time.time() - OLD_S,) * 2)
                together = threading.Barrier(2)

                def renewed(together: threading.Barrier = together) -> bool:
                    together.wait()
                    return blobs.ages.renew(KEY)

                def ended(together: threading.Barrier = together) -> None:
                    together.wait()
                    blobs.ages.discard([item], now() - timedelta(days=1))

                asked, taken = pool.submit(renewed), pool.submit(ended)
                taken.result()
                assert asked.result() == (tmp_path / KEY).exists()
                outcomes.add(asked.result())
        assert outcomes, "both orders are right"
