"""logs_metrics as a service of the cloud side: LogsService, MetricsService, AlarmsService, and what runs beside them."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from belvedere.chassis.runtime import Runtime
from belvedere.chassis.service import Service
from belvedere.v1 import logs_metrics_pb2_grpc as pb_grpc
from services.logs_metrics.alarms_service import Alarms
from services.logs_metrics.evaluator import Evaluator
from services.logs_metrics.events import Intake, Trimmer
from services.logs_metrics.logs_service import Logs
from services.logs_metrics.metrics_service import Metrics
from services.logs_metrics.notifier import Notifier
from services.logs_metrics.settings import Settings


def create(runtime: Runtime) -> Service:
    """logs_metrics in this process."""
    settings = runtime.settings(Settings, "BELVEDERE_LOGS_METRICS_")
    database = runtime.database("logs_metrics")
    intake = Intake(database, runtime.bus, settings, runtime.clock)
    watching: list[Callable[[], Coroutine[Any, Any, None]]] = []
    if settings.evaluate_alarms:
        watching.append(Evaluator(database, runtime.clock).run)
    if settings.alarm_webhooks is not None:
        watching.append(Notifier(database, runtime.bus, settings.alarm_webhooks, runtime.clock).run)
    return Service(
        name="logs_metrics",
        servicers=[
            (pb_grpc.add_LogsServiceServicer_to_server, Logs(database, settings, runtime), "belvedere.v1.LogsService"),
            (pb_grpc.add_MetricsServiceServicer_to_server, Metrics(database, runtime), "belvedere.v1.MetricsService"),
            (pb_grpc.add_AlarmsServiceServicer_to_server, Alarms(database, runtime), "belvedere.v1.AlarmsService"),
        ],
        tasks=[intake.devices, intake.logs, intake.metrics, Trimmer(database, settings, runtime.clock).run, *watching],
        migrations=Path(__file__).parent / "migrations",
    )
