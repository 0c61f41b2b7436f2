"""The number of people as a CloudWatch metric, sent from a thread of its own: no picture waits for the network."""

import os
import threading

NAMESPACE = "PeopleCounter"
METRIC = "People"
APPLICATION = "people-counter"
EVERY_S = 1.0


class PeopleMetric:
    """Collects counts and sends what came together about once a second. Being offline loses values, never a picture."""

    def __init__(self, log):
        self._log = log
        self._lock = threading.Lock()
        self._counts = []
        self._offline = False
        self._wake = threading.Event()
        threading.Thread(target=self._run, name="metric", daemon=True).start()

    def add(self, people):
        """Notes the count of one picture."""
        with self._lock:
            self._counts.append(people)

    def _take(self):
        with self._lock:
            counts, self._counts = self._counts, []
        return counts

    def _run(self):
        # Imported here: boto3 takes a while, and the first picture need not wait for it.
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        region = os.environ.get("AWS_REGION")
        config = Config(connect_timeout=5, read_timeout=5, retries={"max_attempts": 0})
        client = boto3.client("cloudwatch", region_name=region, config=config)
        while not self._wake.wait(EVERY_S):
            counts = self._take()
            if not counts:
                continue
            try:
                client.put_metric_data(Namespace=NAMESPACE, MetricData=[summary(counts)])
                self._offline = False
            except (BotoCoreError, ClientError) as error:
                # Said once, not every second.
                if not self._offline:
                    self._log.warning("the metric can't be sent just now: %s", error)
                self._offline = True


def summary(counts):
    """The counts of some pictures as one CloudWatch datum."""
    return {
        "MetricName": METRIC,
        "Dimensions": [{"Name": "Application", "Value": APPLICATION}],
        "Unit": "Count",
        "StatisticValues": {
            "SampleCount": float(len(counts)),
            "Sum": float(sum(counts)),
            "Minimum": float(min(counts)),
            "Maximum": float(max(counts)),
        },
    }
