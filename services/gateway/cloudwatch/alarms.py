"""CloudWatch's alarms behind the front door, over AlarmsService.

Knows logs_metrics' gRPC and nothing of how alarms are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.chassis.ids import arn
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1.logs_metrics_pb2_grpc import AlarmsServiceStub
from services.gateway.cloudwatch.data import dimensions_of, named, seconds, timestamp
from services.gateway.errors import AwsError
from services.gateway.message import Call
from services.gateway.model_service import Handler, Values

STATISTICS: Mapping[str, pb.Statistic.ValueType] = {
    "SampleCount": pb.STATISTIC_SAMPLE_COUNT,
    "Average": pb.STATISTIC_AVERAGE,
    "Sum": pb.STATISTIC_SUM,
    "Minimum": pb.STATISTIC_MINIMUM,
    "Maximum": pb.STATISTIC_MAXIMUM,
}
COMPARISONS: Mapping[str, pb.ComparisonOperator.ValueType] = {
    "GreaterThanOrEqualToThreshold": pb.COMPARISON_OPERATOR_GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
    "GreaterThanThreshold": pb.COMPARISON_OPERATOR_GREATER_THAN_THRESHOLD,
    "LessThanThreshold": pb.COMPARISON_OPERATOR_LESS_THAN_THRESHOLD,
    "LessThanOrEqualToThreshold": pb.COMPARISON_OPERATOR_LESS_THAN_OR_EQUAL_TO_THRESHOLD,
}
MISSING_DATA: Mapping[str, pb.MissingData.ValueType] = {
    "missing": pb.MISSING_DATA_MISSING,
    "ignore": pb.MISSING_DATA_IGNORE,
    "breaching": pb.MISSING_DATA_BREACHING,
    "notBreaching": pb.MISSING_DATA_NOT_BREACHING,
}
STATES: Mapping[str, pb.AlarmState.ValueType] = {
    "OK": pb.ALARM_STATE_OK,
    "ALARM": pb.ALARM_STATE_ALARM,
    "INSUFFICIENT_DATA": pb.ALARM_STATE_INSUFFICIENT_DATA,
}
HISTORY: Mapping[str, pb.AlarmHistoryKind.ValueType] = {
    "ConfigurationUpdate": pb.ALARM_HISTORY_KIND_CONFIGURATION_UPDATE,
    "StateUpdate": pb.ALARM_HISTORY_KIND_STATE_UPDATE,
    "Action": pb.ALARM_HISTORY_KIND_ACTION,
}
NOT_SERVED = ("Metrics", "ExtendedStatistic", "EvaluateLowSampleCountPercentile", "ThresholdMetricId", "Tags")
"""Of PutMetricAlarm: metric math, percentiles, anomaly detection, tags. Refused rather than passed over."""
NEEDED = ("MetricName", "Namespace", "Period", "Statistic", "Threshold")
"""Optional in the API's model, for the sake of what is not served."""


class AlarmOperations:
    """The operations on alarms."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._alarms = AlarmsServiceStub(channel)

    def handlers(self) -> dict[str, Handler]:
        """By operation."""
        return {
            "PutMetricAlarm": self._put,
            "DescribeAlarms": self._describe,
            "DeleteAlarms": self._delete,
            "SetAlarmState": self._set_state,
            "DescribeAlarmHistory": self._history,
        }

    async def _put(self, values: Values, call: Call) -> dict[str, Any]:
        await self._alarms.PutMetricAlarm(pb.PutMetricAlarmRequest(definition=_definition(values)))
        return {}

    async def _describe(self, values: Values, call: Call) -> dict[str, Any]:
        if "ChildrenOfAlarmName" in values or "ParentsOfAlarmName" in values:
            raise _invalid("There are no composite alarms here: leave ChildrenOfAlarmName and ParentsOfAlarmName out.")
        if "AlarmNames" in values and "AlarmNamePrefix" in values:
            text = "AlarmNames and AlarmNamePrefix cannot stand together."
            raise AwsError("InvalidParameterCombinationException", text)
        # Of composite alarms there are none.
        if "MetricAlarm" not in values.get("AlarmTypes", ["MetricAlarm"]):
            return {"MetricAlarms": [], "CompositeAlarms": []}
        request = pb.DescribeAlarmsRequest(
            names=values.get("AlarmNames", []),
            prefix=values.get("AlarmNamePrefix", ""),
            action_prefix=values.get("ActionPrefix", ""),
            state=STATES.get(values.get("StateValue", ""), pb.ALARM_STATE_UNSPECIFIED),
            limit=values.get("MaxRecords", 0),
            next_token=values.get("NextToken", ""),
        )
        answer = await self._alarms.DescribeAlarms(request)
        output: dict[str, Any] = {"MetricAlarms": [_alarm(alarm) for alarm in answer.alarms], "CompositeAlarms": []}
        return output | ({"NextToken": answer.next_token} if answer.next_token else {})

    async def _delete(self, values: Values, call: Call) -> dict[str, Any]:
        for name in sorted(set(values["AlarmNames"][1:])):
            await call.authorize("cloudwatch:DeleteAlarms", alarm_arn(call, name))
        await self._alarms.DeleteAlarms(pb.DeleteAlarmsRequest(names=values["AlarmNames"]))
        return {}

    async def _set_state(self, values: Values, call: Call) -> dict[str, Any]:
        request = pb.SetAlarmStateRequest(
            name=values["AlarmName"],
            state=STATES[values["StateValue"]],
            reason=values["StateReason"],
            reason_data=values.get("StateReasonData", ""),
        )
        await self._alarms.SetAlarmState(request)
        return {}

    async def _history(self, values: Values, call: Call) -> dict[str, Any]:
        request = pb.DescribeAlarmHistoryRequest(
            alarm_name=values.get("AlarmName", ""),
            kind=HISTORY.get(values.get("HistoryItemType", ""), pb.ALARM_HISTORY_KIND_UNSPECIFIED),
            start=_optional_time(values.get("StartDate")),
            end=_optional_time(values.get("EndDate")),
            ascending=values.get("ScanBy") == "TimestampAscending",
            limit=values.get("MaxRecords", 0),
            next_token=values.get("NextToken", ""),
        )
        answer = await self._alarms.DescribeAlarmHistory(request)
        items = [
            {
                "AlarmName": item.alarm_name,
                "AlarmType": "MetricAlarm",
                "Timestamp": seconds(item.at),
                "HistoryItemType": named(HISTORY, item.kind),
                "HistorySummary": item.summary,
                "HistoryData": item.data,
            }
            for item in answer.items
        ]
        return {"AlarmHistoryItems": items, **({"NextToken": answer.next_token} if answer.next_token else {})}


def alarm_arn(call: Call, name: str) -> str:
    """What policies name an alarm by."""
    return arn("cloudwatch", call.who.region, call.who.account, f"alarm:{name}")


def _definition(values: Values) -> pb.AlarmDefinition:
    for name in NOT_SERVED:
        if values.get(name):
            raise _invalid(f"{name} is not served here: an alarm watches one metric by Statistic and Threshold.")
    if missing := [name for name in NEEDED if name not in values]:
        raise AwsError("MissingRequiredParameterException", f"The parameter {missing[0]} is required.")
    if values["ComparisonOperator"] not in COMPARISONS:
        raise _invalid(f"ComparisonOperator {values['ComparisonOperator']} needs anomaly detection, not served here.")
    missing_data = values.get("TreatMissingData", "missing")
    if missing_data not in MISSING_DATA:
        raise _invalid(f"TreatMissingData must be one of {', '.join(MISSING_DATA)}.")
    metric = pb.Metric(
        namespace=values["Namespace"], name=values["MetricName"], dimensions=dimensions_of(values, "the alarm")
    )
    query = pb.MetricQuery(
        metric=metric,
        period_seconds=values["Period"],
        statistic=STATISTICS[values["Statistic"]],
        unit=values.get("Unit", ""),
    )
    return pb.AlarmDefinition(
        name=values["AlarmName"],
        description=values.get("AlarmDescription", ""),
        actions_enabled=values.get("ActionsEnabled", True),
        ok_actions=values.get("OKActions", []),
        alarm_actions=values.get("AlarmActions", []),
        insufficient_data_actions=values.get("InsufficientDataActions", []),
        query=query,
        evaluation_periods=values["EvaluationPeriods"],
        datapoints_to_alarm=values.get("DatapointsToAlarm", 0),
        threshold=values["Threshold"],
        comparison=COMPARISONS[values["ComparisonOperator"]],
        missing_data=MISSING_DATA[missing_data],
    )


def _alarm(alarm: pb.Alarm) -> dict[str, Any]:
    definition, query = alarm.definition, alarm.definition.query
    dimensions = sorted(query.metric.dimensions.items())
    result: dict[str, Any] = {
        "AlarmName": definition.name,
        "AlarmArn": alarm.arn,
        "AlarmConfigurationUpdatedTimestamp": seconds(alarm.configuration_updated),
        "ActionsEnabled": definition.actions_enabled,
        "OKActions": list(definition.ok_actions),
        "AlarmActions": list(definition.alarm_actions),
        "InsufficientDataActions": list(definition.insufficient_data_actions),
        "StateValue": named(STATES, alarm.state),
        "StateReason": alarm.state_reason,
        "StateUpdatedTimestamp": seconds(alarm.state_updated),
        "StateTransitionedTimestamp": seconds(alarm.state_transitioned),
        "MetricName": query.metric.name,
        "Namespace": query.metric.namespace,
        "Statistic": named(STATISTICS, query.statistic),
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions],
        "Period": query.period_seconds,
        "EvaluationPeriods": definition.evaluation_periods,
        "Threshold": definition.threshold,
        "ComparisonOperator": named(COMPARISONS, definition.comparison),
        "TreatMissingData": named(MISSING_DATA, definition.missing_data or pb.MISSING_DATA_MISSING),
    }
    optional = {
        "AlarmDescription": definition.description,
        "StateReasonData": alarm.state_reason_data,
        "Unit": query.unit,
        "DatapointsToAlarm": definition.datapoints_to_alarm,
    }
    return result | {name: value for name, value in optional.items() if value}


def _optional_time(value: float | None) -> Timestamp | None:
    return None if value is None else timestamp(value)


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterValueException", message)
