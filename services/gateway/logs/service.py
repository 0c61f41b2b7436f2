"""CloudWatch Logs behind the front door, in awsJson1.1, over LogsService.

Knows logs_metrics' gRPC and nothing of how it stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import grpc

from belvedere.chassis.errors import BelvedereError, Conflict, Denied, Invalid, NotFound, QuotaExceeded
from belvedere.chassis.ids import arn
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1.logs_metrics_pb2_grpc import LogsServiceStub
from services.gateway.codecs import JsonCodec
from services.gateway.errors import AwsError
from services.gateway.message import Call
from services.gateway.model_service import ModelService, Values, load_model
from services.gateway.validation import Problems

Rejection: TypeAlias = Literal["too_old_end_index", "expired_end_index", "too_new_start_index"]
PREFIX_AND_PATTERN_TEXT = "logGroupNamePrefix and logGroupNamePattern cannot stand together."
REJECTED: Mapping[str, Rejection] = {
    "tooOldLogEventEndIndex": "too_old_end_index",
    "expiredLogEventEndIndex": "expired_end_index",
    "tooNewLogEventStartIndex": "too_new_start_index",
}


def create(channel: grpc.aio.Channel) -> ModelService:
    """CloudWatch Logs over logs_metrics."""
    model = load_model("logs")
    operations = _Operations(channel)
    return ModelService(
        model=model,
        codecs=[JsonCodec(model.metadata["targetPrefix"], model.metadata["jsonVersion"])],
        prefix="logs",
        handlers={
            "CreateLogGroup": operations.create_log_group,
            "CreateLogStream": operations.create_log_stream,
            "PutLogEvents": operations.put_log_events,
            "DescribeLogGroups": operations.describe_log_groups,
            "DescribeLogStreams": operations.describe_log_streams,
            "GetLogEvents": operations.get_log_events,
            "FilterLogEvents": operations.filter_log_events,
            "PutRetentionPolicy": operations.put_retention_policy,
            "DeleteRetentionPolicy": operations.delete_retention_policy,
            "DeleteLogGroup": operations.delete_log_group,
            "DeleteLogStream": operations.delete_log_stream,
        },
        resource=_resource,
        invalid=_invalid,
        failure=_failure,
    )


class _Operations:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._logs = LogsServiceStub(channel)

    async def create_log_group(self, values: Values, call: Call) -> dict[str, Any]:
        await self._logs.CreateLogGroup(pb.CreateLogGroupRequest(group=values["logGroupName"]))
        return {}

    async def create_log_stream(self, values: Values, call: Call) -> dict[str, Any]:
        group, stream = values["logGroupName"], values["logStreamName"]
        await self._logs.CreateLogStream(pb.CreateLogStreamRequest(group=group, stream=stream))
        return {}

    async def put_log_events(self, values: Values, call: Call) -> dict[str, Any]:
        events = [
            pb.LogEvent(timestamp_ms=event["timestamp"], message=event["message"]) for event in values["logEvents"]
        ]
        request = pb.PutLogEventsRequest(group=values["logGroupName"], stream=values["logStreamName"], events=events)
        answer = await self._logs.PutLogEvents(request)
        rejected = {name: getattr(answer, field) for name, field in REJECTED.items() if answer.HasField(field)}
        output: dict[str, Any] = {"rejectedLogEventsInfo": rejected} if rejected else {}
        return output | {"nextSequenceToken": answer.next_sequence_token}

    async def describe_log_groups(self, values: Values, call: Call) -> dict[str, Any]:
        if "logGroupNamePattern" in values and "logGroupNamePrefix" in values:
            raise AwsError("InvalidParameterException", PREFIX_AND_PATTERN_TEXT)
        request = pb.DescribeLogGroupsRequest(
            pattern=values.get("logGroupNamePattern", ""),
            prefix=values.get("logGroupNamePrefix", ""),
            limit=values.get("limit", 50),
            next_token=values.get("nextToken", ""),
        )
        answer = await self._logs.DescribeLogGroups(request)
        return {"logGroups": [_group(group) for group in answer.groups], **_next(answer.next_token)}

    async def describe_log_streams(self, values: Values, call: Call) -> dict[str, Any]:
        request = pb.DescribeLogStreamsRequest(
            group=_group_name(values),
            prefix=values.get("logStreamNamePrefix", ""),
            order_by_last_event=values.get("orderBy") == "LastEventTime",
            descending=values.get("descending", False),
            limit=values.get("limit", 50),
            next_token=values.get("nextToken", ""),
        )
        answer = await self._logs.DescribeLogStreams(request)
        return {"logStreams": [_stream(stream) for stream in answer.streams], **_next(answer.next_token)}

    async def get_log_events(self, values: Values, call: Call) -> dict[str, Any]:
        request = pb.GetLogEventsRequest(
            group=_group_name(values),
            stream=values["logStreamName"],
            start_ms=values.get("startTime"),
            end_ms=values.get("endTime"),
            start_from_head=values.get("startFromHead", False),
            limit=values.get("limit", 10_000),
            next_token=values.get("nextToken", ""),
        )
        answer = await self._logs.GetLogEvents(request)
        events = [
            {"timestamp": event.timestamp_ms, "message": event.message, "ingestionTime": event.ingestion_ms}
            for event in answer.events
        ]
        return {
            "events": events,
            "nextForwardToken": answer.next_forward_token,
            "nextBackwardToken": answer.next_backward_token,
        }

    async def filter_log_events(self, values: Values, call: Call) -> dict[str, Any]:
        request = pb.FilterLogEventsRequest(
            group=_group_name(values),
            streams=values.get("logStreamNames", []),
            stream_prefix=values.get("logStreamNamePrefix", ""),
            start_ms=values.get("startTime"),
            end_ms=values.get("endTime"),
            pattern=values.get("filterPattern", ""),
            limit=values.get("limit", 10_000),
            next_token=values.get("nextToken", ""),
        )
        answer = await self._logs.FilterLogEvents(request)
        events = [
            {
                "logStreamName": event.stream,
                "timestamp": event.timestamp_ms,
                "message": event.message,
                "ingestionTime": event.ingestion_ms,
                "eventId": event.event_id,
            }
            for event in answer.events
        ]
        # CloudWatch has sent this list empty since 2019.
        return {"events": events, "searchedLogStreams": [], **_next(answer.next_token)}

    async def put_retention_policy(self, values: Values, call: Call) -> dict[str, Any]:
        request = pb.PutRetentionPolicyRequest(group=values["logGroupName"], days=values["retentionInDays"])
        await self._logs.PutRetentionPolicy(request)
        return {}

    async def delete_retention_policy(self, values: Values, call: Call) -> dict[str, Any]:
        await self._logs.DeleteRetentionPolicy(pb.DeleteRetentionPolicyRequest(group=values["logGroupName"]))
        return {}

    async def delete_log_group(self, values: Values, call: Call) -> dict[str, Any]:
        await self._logs.DeleteLogGroup(pb.DeleteLogGroupRequest(group=values["logGroupName"]))
        return {}

    async def delete_log_stream(self, values: Values, call: Call) -> dict[str, Any]:
        group, stream = values["logGroupName"], values["logStreamName"]
        await self._logs.DeleteLogStream(pb.DeleteLogStreamRequest(group=group, stream=stream))
        return {}


def _group_name(values: Values) -> str:
    """The group's name, given as such or as an ARN. Raises AwsError where there is none."""
    identifier = values.get("logGroupIdentifier", "")
    name = values.get("logGroupName") or (identifier.split(":")[6] if identifier.count(":") >= 6 else identifier)
    if not name:
        raise AwsError("InvalidParameterException", "logGroupName or logGroupIdentifier is required.")
    return str(name)


def _group(group: pb.LogGroup) -> dict[str, Any]:
    result: dict[str, Any] = {
        "logGroupName": group.name,
        "creationTime": group.creation_ms,
        "metricFilterCount": 0,
        "arn": group.arn if group.arn.endswith(":*") else f"{group.arn}:*",
        "logGroupArn": group.arn.removesuffix(":*"),
        "storedBytes": group.stored_bytes,
    }
    if group.HasField("retention_days"):
        result["retentionInDays"] = group.retention_days
    return result


def _stream(stream: pb.LogStream) -> dict[str, Any]:
    result: dict[str, Any] = {
        "logStreamName": stream.name,
        "creationTime": stream.creation_ms,
        "arn": stream.arn,
        "storedBytes": 0,
    }
    if stream.HasField("first_event_ms"):
        result["firstEventTimestamp"] = stream.first_event_ms
    if stream.HasField("last_event_ms"):
        result["lastEventTimestamp"] = stream.last_event_ms
    if stream.HasField("last_ingestion_ms"):
        result["lastIngestionTime"] = stream.last_ingestion_ms
    return result


def _next(token: str) -> dict[str, str]:
    return {"nextToken": token} if token else {}


def _resource(values: Values, call: Call) -> str:
    """The group or the stream, by the one ARN that it has, however it is named. Raises AwsError for another account's."""
    identifier = values.get("logGroupIdentifier") or ""
    if not (values.get("logGroupName") or identifier):
        return "*"
    group = _group_name(values)
    own = arn("logs", call.who.region, call.who.account, f"log-group:{group}")
    if identifier.count(":") >= 6 and identifier.removesuffix(":*") != own:
        raise AwsError("ResourceNotFoundException", "The specified log group does not exist.")
    stream = f":log-stream:{values['logStreamName']}" if values.get("logStreamName") else ""
    return arn("logs", call.who.region, call.who.account, f"log-group:{group}{stream}")


def _invalid(problems: Problems) -> AwsError:
    return AwsError("InvalidParameterException", problems.summary())


def _failure(error: BelvedereError) -> AwsError:
    match error:
        case NotFound():
            return AwsError("ResourceNotFoundException", error.message)
        case Conflict():
            return AwsError("ResourceAlreadyExistsException", error.message)
        case Invalid():
            return AwsError("InvalidParameterException", error.message)
        case Denied():
            return AwsError("AccessDeniedException", error.message, 403)
        case QuotaExceeded():
            return AwsError("LimitExceededException", error.message)
        case _:
            return AwsError("ServiceUnavailableException", "Logs are not available at the moment. Try again.", 503)
