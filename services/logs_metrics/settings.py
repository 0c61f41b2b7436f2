"""Settings of logs_metrics: environment variables BELVEDERE_LOGS_METRICS_<FIELD>."""

from dataclasses import dataclass

from belvedere.chassis.secret import Secret


@dataclass(frozen=True)
class Settings:
    """How long things are kept, and how much is taken at once."""

    log_retention_days: int = 14
    """Log events of groups without a retention of their own are removed after so many days."""
    metric_retention_days: int = 15
    """Metric data are removed after so many days; a metric without data is gone."""
    trim_interval_s: float = 600.0
    """Time between two removals."""
    evaluate_alarms: bool = True
    """Whether this process evaluates alarms. Several replicas may; one is enough."""
    alarm_webhooks: Secret[str] | None = None
    """Addresses (http or https, separated by spaces) that a change of an alarm is posted to, as JSON of the shape that
    Amazon SNS delivers; none: nothing is posted. Whoever knows them can post there: they are not logged."""
    batch_messages: int = 64
    """Most messages of appliances that one transaction takes."""
    unknown_device_retry_s: float = 0.5
    """A batch of a device that is not known yet is looked at again after this time."""
    unknown_device_limit_s: float = 300.0
    """After this time a batch of a device that never became known is dropped, and counted."""
