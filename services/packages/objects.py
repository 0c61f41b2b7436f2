"""Tables of buckets and objects, and the queries on them. Knows no gRPC, and not what objects are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import JSON, BigInteger, ColumnElement, func, literal_column, tuple_
from sqlmodel import Field, col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import UtcDateTime
from services.packages.store import Row

KEYS_AT_ONCE = 500


class BucketRow(Row, table=True):
    """A bucket that somebody made. That of packages has no row: it is there from the start."""

    __tablename__ = "bucket"
    name: str = Field(primary_key=True, max_length=255)
    account: str = Field(max_length=12, index=True)
    region: str = Field(max_length=64)
    created: datetime = Field(sa_type=UtcDateTime)


class ObjectRow(Row, table=True):
    """What stands at a key of a bucket."""

    __tablename__ = "object"
    account: str = Field(primary_key=True, max_length=12)
    region: str = Field(primary_key=True, max_length=64)
    bucket: str = Field(primary_key=True, max_length=255)
    key: str = Field(primary_key=True, max_length=1024)
    digest: str = Field(max_length=80)
    size_bytes: int = Field(sa_type=BigInteger)
    etag: str = Field(max_length=128)
    content_type: str = Field(default="", max_length=255)
    user_metadata: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    modified: datetime = Field(sa_type=UtcDateTime)


_KEY = (col(ObjectRow.account), col(ObjectRow.region), col(ObjectRow.bucket), col(ObjectRow.key))


async def find_object(session: AsyncSession, account: str, region: str, bucket: str, key: str) -> ObjectRow | None:
    """What stands at a key."""
    return await session.get(ObjectRow, (account, region, bucket, key))


async def find_bucket(session: AsyncSession, account: str, region: str, name: str) -> BucketRow | None:
    """A bucket that this account made in this region."""
    row = await session.get(BucketRow, name)
    return row if row is not None and (row.account, row.region) == (account, region) else None


async def list_buckets(session: AsyncSession, account: str, region: str) -> Sequence[BucketRow]:
    """Buckets by name."""
    query = select(BucketRow).where(BucketRow.account == account, BucketRow.region == region)
    return (await session.exec(query.order_by(col(BucketRow.name)))).all()


async def has_objects(session: AsyncSession, account: str, region: str, bucket: str, but: str) -> bool:
    """Whether there are others than those below the prefix `but`."""
    query = select(ObjectRow.key).where(*_of_bucket(account, region, bucket), ~_has_prefix(but)).limit(1)
    return (await session.exec(query)).first() is not None


async def delete_below(session: AsyncSession, account: str, region: str, bucket: str, prefix: str) -> None:
    """Removes the objects below a prefix."""
    await session.exec(delete(ObjectRow).where(*_of_bucket(account, region, bucket), _has_prefix(prefix)))


async def take_objects(
    session: AsyncSession, account: str, region: str, bucket: str, prefix: str
) -> Sequence[tuple[str, str]]:
    """Removes the objects below a prefix; (key, digest) of each."""
    where = (*_of_bucket(account, region, bucket), _has_prefix(prefix))
    taken = (await session.exec(select(ObjectRow.key, ObjectRow.digest).where(*where))).all()
    await session.exec(delete(ObjectRow).where(*where))
    return taken


async def abandoned_uploads(
    session: AsyncSession, front: str, id_length: int, before: datetime
) -> Sequence[tuple[str, str, str, str]]:
    """(account, region, bucket, upload id) of uploads below `front` of which nothing was written since `before`."""
    # Written out, not bound: PostgreSQL must see that what is selected is what is grouped by.
    upload_id = func.substr(ObjectRow.key, literal_column(str(len(front) + 1)), literal_column(str(id_length)))
    place = (col(ObjectRow.account), col(ObjectRow.region), col(ObjectRow.bucket), upload_id)
    query = select(*place).where(_has_prefix(front)).group_by(*place).having(func.max(ObjectRow.modified) < before)
    return (await session.exec(query)).all()


async def changed_since(
    session: AsyncSession, account: str, region: str, bucket: str, prefix: str, moment: datetime
) -> bool:
    """Whether an object below a prefix was written at `moment` or later."""
    where = (*_of_bucket(account, region, bucket), _has_prefix(prefix), col(ObjectRow.modified) >= moment)
    return (await session.exec(select(ObjectRow.key).where(*where).limit(1))).first() is not None


async def delete_objects(session: AsyncSession, account: str, region: str, bucket: str, keys: Sequence[str]) -> None:
    """Removes keys; those that are not there do not matter."""
    of_bucket = _of_bucket(account, region, bucket)
    # SQLite takes so many values in one statement at most.
    for start in range(0, len(keys), KEYS_AT_ONCE):
        await session.exec(
            delete(ObjectRow).where(*of_bucket, col(ObjectRow.key).in_(keys[start : start + KEYS_AT_ONCE]))
        )


async def all_objects(session: AsyncSession, after: ObjectRow | None, limit: int) -> Sequence[ObjectRow]:
    """Of all accounts, by key."""
    query = select(ObjectRow)
    if after is not None:
        query = query.where(tuple_(*_KEY) > (after.account, after.region, after.bucket, after.key))
    return (await session.exec(query.order_by(*_KEY).limit(limit))).all()


async def list_objects(
    session: AsyncSession, account: str, region: str, bucket: str, prefix: str, start_after: str, limit: int
) -> Sequence[ObjectRow]:
    """Objects by key."""
    query = select(ObjectRow).where(
        ObjectRow.account == account, ObjectRow.region == region, ObjectRow.bucket == bucket
    )
    if prefix:
        # The index leads to where it begins; it ends with the page, or with the first key that is greater than all that have it.
        query = query.where(col(ObjectRow.key) >= prefix)
        if after := _behind(prefix):
            query = query.where(col(ObjectRow.key) < after)
        query = query.where(_has_prefix(prefix))
    if start_after:
        query = query.where(col(ObjectRow.key) > start_after)
    return (await session.exec(query.order_by(col(ObjectRow.key)).limit(limit))).all()


def _of_bucket(account: str, region: str, bucket: str) -> tuple[ColumnElement[bool], ...]:
    return col(ObjectRow.account) == account, col(ObjectRow.region) == region, col(ObjectRow.bucket) == bucket


def _behind(prefix: str) -> str:
    """The least text that is greater than all that begin with `prefix`, by their bytes in UTF-8; empty: there is none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return ""
    # Between U+D7FF and U+E000 there are no characters.
    return kept[:-1] + ("\ue000" if kept[-1] == "\ud7ff" else chr(ord(kept[-1]) + 1))


def _has_prefix(prefix: str) -> ColumnElement[bool]:
    # Not LIKE: on SQLite that takes upper and lower case for the same.
    return func.substr(ObjectRow.key, 1, len(prefix)) == prefix
