"""Tables of logs_metrics."""

from typing import ClassVar

from sqlalchemy import BigInteger, Index, UniqueConstraint
from sqlalchemy.orm import registry
from sqlalchemy.types import Integer
from sqlmodel import Field, SQLModel

BIG_KEY = BigInteger().with_variant(Integer, "sqlite")
"""A primary key that counts up by itself on both databases: SQLite does so for INTEGER only."""


class Row(SQLModel, registry=registry()):
    """Base of this service's tables."""


class DeviceRow(Row, table=True):
    """Whose a device is, from registry's events: what a device sends names no account."""

    __tablename__ = "device"
    device_id: str = Field(primary_key=True)
    account: str
    region: str


class GroupRow(Row, table=True):
    """A log group."""

    __tablename__ = "log_group"
    account: str = Field(primary_key=True)
    region: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    creation_ms: int = Field(sa_type=BigInteger)
    retention_days: int | None = None


class StreamRow(Row, table=True):
    """A log stream."""

    __tablename__ = "log_stream"
    __table_args__ = (UniqueConstraint("account", "region", "group_name", "name"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_KEY)
    account: str
    region: str
    group_name: str
    name: str
    creation_ms: int = Field(sa_type=BigInteger)
    first_event_ms: int | None = Field(default=None, sa_type=BigInteger)
    last_event_ms: int | None = Field(default=None, sa_type=BigInteger)
    last_ingestion_ms: int | None = Field(default=None, sa_type=BigInteger)
    stored_bytes: int = Field(default=0, sa_type=BigInteger)


class EventRow(Row, table=True):
    """A log event. `origin` is the sequence a device gave it: a second delivery of the same is refused by its
    uniqueness."""

    __tablename__ = "log_event"
    __table_args__ = (
        UniqueConstraint("stream_id", "origin"),
        Index("log_event_order", "stream_id", "timestamp_ms", "sequence", "id"),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_KEY)
    stream_id: int = Field(sa_type=BigInteger, foreign_key="log_stream.id", ondelete="CASCADE")
    timestamp_ms: int = Field(sa_type=BigInteger)
    sequence: int = Field(sa_type=BigInteger)
    origin: int | None = Field(default=None, sa_type=BigInteger)
    ingestion_ms: int = Field(sa_type=BigInteger)
    message: str


class MetricRow(Row, table=True):
    """A metric: a namespace, a name and exactly these dimensions."""

    __tablename__ = "metric"
    __table_args__ = (UniqueConstraint("account", "region", "namespace", "name", "dimensions"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_KEY)
    account: str
    region: str
    namespace: str
    name: str
    dimensions: str
    """rules.dimensions_key"""


class DatumRow(Row, table=True):
    """The values of one metric within one second."""

    __tablename__ = "metric_datum"
    metric_id: int = Field(primary_key=True, sa_type=BigInteger, foreign_key="metric.id", ondelete="CASCADE")
    timestamp_s: int = Field(primary_key=True, sa_type=BigInteger)
    unit: str = Field(primary_key=True)
    sum: float
    minimum: float
    maximum: float
    sample_count: float


class AlarmRow(Row, table=True):
    """An alarm: what it watches, and its state. Times are unix milliseconds."""

    __tablename__ = "alarm"
    account: str = Field(primary_key=True)
    region: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    namespace: str
    metric_name: str
    dimensions: str
    """rules.dimensions_key"""
    period_s: int
    statistic: int
    unit: str
    evaluation_periods: int
    datapoints_to_alarm: int
    """0: all of the evaluation periods."""
    threshold: float
    comparison: int
    missing_data: int
    description: str
    actions_enabled: bool
    actions: str
    """JSON: {state: [ARN]}"""
    configured_ms: int = Field(sa_type=BigInteger)
    state: int
    reason: str
    reason_data: str
    updated_ms: int = Field(sa_type=BigInteger)
    transitioned_ms: int = Field(sa_type=BigInteger)


class HistoryRow(Row, table=True):
    """What happened to an alarm."""

    __tablename__ = "alarm_history"
    __table_args__: ClassVar = (Index("alarm_history_order", "account", "region", "at_ms", "id"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_KEY)
    account: str
    region: str
    name: str
    at_ms: int = Field(sa_type=BigInteger)
    kind: int
    summary: str
    data: str


class ConsumedRow(Row, table=True):
    """A message of stream UP_METRICS whose values are already in: written in their transaction, so that none counts
    twice."""

    __tablename__ = "consumed"
    __table_args__: ClassVar = (Index("consumed_at", "at_ms"),)
    stream_sequence: int = Field(primary_key=True, sa_type=BigInteger)
    at_ms: int = Field(sa_type=BigInteger)
