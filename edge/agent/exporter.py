"""The figures of the data plane where Prometheus finds them: GET http://127.0.0.1:9464/metrics.

Every request reads what the processes said last, which is at most a second old; nothing is kept for it. Must not know what is
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from belvedere.chassis.logs import get_logger
from edge.agent.stages import Kind, Sample

log = get_logger(__name__)

PATH = "/metrics"
SHUTDOWN_TIMEOUT_S = 1.0


class _Now(Collector):
    def __init__(self, samples: Callable[[], Iterable[Sample]]) -> None:
        self._samples = samples

    def describe(self) -> Iterable[Metric]:
        return []  # asked at registration, before there is anything

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for sample in self._samples():
            family = families.get(sample.name)
            if family is None:
                make = CounterMetricFamily if sample.kind is Kind.COUNTER else GaugeMetricFamily
                family = families[sample.name] = make(
                    sample.name, sample.help, labels=[name for name, _ in sample.labels]
                )
            family.add_metric([value for _, value in sample.labels], sample.value)  # type: ignore[attr-defined]
        yield from families.values()


class Exporter:
    """The HTTP server."""

    def __init__(self, samples: Callable[[], Iterable[Sample]], host: str, port: int) -> None:
        """`port`: another one is taken where it is in use, as by a second appliance on the same machine."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Now(samples))
        self._host, self._wanted = host, port
        self._runner: web.ServerRunner | None = None
        self.url = ""
        """Where it is to be found; empty while it does not listen."""

    async def start(self) -> None:
        """Listens."""
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        self._runner = runner
        try:
            await web.TCPSite(runner, self._host, self._wanted).start()
        except OSError as error:
            log.warning("the port for metrics is taken; a free one is used", port=self._wanted, why=error.strerror)
            await web.TCPSite(runner, self._host, 0).start()
        port = runner.addresses[0][1]
        self.url = f"http://{self._host}:{port}{PATH}"
        log.info("metrics can be read", url=self.url)

    async def close(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != PATH:
            return web.Response(status=404, text=f"the metrics are at {PATH}\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"}, text="only GET and HEAD\n")
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
