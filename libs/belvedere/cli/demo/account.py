"""What the demo does besides what any user does: provisions its appliance, and asks metrics and logs back.

Blocking, as boto3 is; the session calls it from a thread.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3

from belvedere import awsmodel
from belvedere.cli import account
from belvedere.cli.account import APPLICATION_ROLE, Deployment, polls
from belvedere.cli.cloud import CloudAccess
from belvedere.cli.errors import CliError

__all__ = ["APPLICATION_ROLE", "Account", "Deployment"]

ONLINE_TIMEOUT_S = 120.0


class Account(account.Account):
    """The administrator of a cloud side, with boto3."""

    def __init__(self, access: CloudAccess, models: Path) -> None:
        awsmodel.install(models)  # for people who look on with the AWS CLI
        session = boto3.Session(
            aws_access_key_id=access.access_key_id,
            aws_secret_access_key=access.secret_access_key,
            region_name=access.region,
        )
        super().__init__(session, access.endpoint_url)
        self._account_id = access.account_id
        self.cloudwatch = self._client("cloudwatch")

    def provision(self, name: str, bundle: Path) -> str:
        """ProvisionDevice; the ZIP lands at `bundle`. Returns the device id."""
        answer = self.panorama.provision_device(Name=name, Description="The demo's virtual appliance")
        bundle.write_bytes(answer["Certificates"])
        bundle.chmod(0o600)
        return str(answer["DeviceId"])

    def wait_online(self, device_id: str) -> None:
        for device in polls(ONLINE_TIMEOUT_S, lambda: self.panorama.describe_device(DeviceId=device_id)):
            if device.get("DeviceConnectionStatus") == "ONLINE":
                return
        raise CliError(
            f"the appliance did not come online within {ONLINE_TIMEOUT_S:.0f} s (logs in the appliance folder)"
        )

    def mean_of_metric(self, namespace: str, name: str, since: datetime) -> float | None:
        """Mean over every metric of that name (whatever its dimensions), weighted by samples; None without data."""
        total = samples = 0.0
        for metric in self.cloudwatch.list_metrics(Namespace=namespace, MetricName=name)["Metrics"]:
            answer = self.cloudwatch.get_metric_statistics(
                Namespace=namespace,
                MetricName=name,
                Dimensions=metric["Dimensions"],
                StartTime=since,
                EndTime=datetime.now(UTC) + timedelta(minutes=1),
                Period=60,
                Statistics=["Sum", "SampleCount"],
            )
            total += sum(point["Sum"] for point in answer["Datapoints"])
            samples += sum(point["SampleCount"] for point in answer["Datapoints"])
        return total / samples if samples else None

    def log_lines(self, group: str, stream: str, limit: int = 5) -> list[str]:
        try:
            answer = self.logs.get_log_events(logGroupName=group, logStreamName=stream, limit=limit)
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in answer["events"]]
