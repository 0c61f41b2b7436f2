"""What the collector of garbage did, as metrics of the cloud side's own account: namespace Belvedere/Storage, no dimensions.

Must not know the collector's ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc

from belvedere.blobs import Amount
from belvedere.chassis import logs
from belvedere.chassis.context import Caller, acting_as, new_request_id, service_principal
from belvedere.chassis.errors import BelvedereError
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1 import logs_metrics_pb2_grpc

NAMESPACE = "Belvedere/Storage"

log = logs.get_logger(__name__)


@dataclass(frozen=True)
class Figures:
    """Tells them to the metrics service."""

    channel: Callable[[], grpc.aio.Channel]
    account: str
    region: str

    async def tell(self, amounts: Mapping[str, Amount]) -> None:
        """`<name>Bytes` and `<name>Objects` of each. A metrics service that is away misses a figure, which is said."""
        data = [
            pb.MetricDatum(name=name + kind, unit=unit, sum=value, minimum=value, maximum=value, sample_count=1)
            for name, amount in amounts.items()
            for kind, unit, value in (("Bytes", "Bytes", amount.size_bytes), ("Objects", "Count", amount.objects))
        ]
        who = Caller(self.account, self.region, service_principal("packages"), new_request_id())
        try:
            with acting_as(who):
                stub = logs_metrics_pb2_grpc.MetricsServiceStub(self.channel())
                await stub.PutMetricData(pb.PutMetricDataRequest(namespace=NAMESPACE, data=data))
        except BelvedereError as error:
            log.warning("figures of the store are missed", error=str(error))
