"""STS behind the front door: GetCallerIdentity and AssumeRole, in the query protocol.

Knows identity's gRPC. Credentials that it hands out are in the reply and nowhere else.
"""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

import grpc

from belvedere.chassis.errors import BelvedereError, Denied, Invalid, NotFound
from belvedere.v1 import identity_pb2
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from services.gateway.codecs import QueryCodec
from services.gateway.errors import AwsError
from services.gateway.message import Call
from services.gateway.model_service import ModelService, Values, load_model
from services.gateway.validation import Problems

DEFAULT_DURATION_S = 3600
NARROWING = ("Policy", "PolicyArns", "SerialNumber", "TokenCode")
"""Members that limit who gets a session, and what it may."""


def create(channel: grpc.aio.Channel) -> ModelService:
    """STS over identity."""
    model = load_model("sts")
    operations = _Operations(channel)
    return ModelService(
        model=model,
        codecs=[QueryCodec(model.metadata["xmlNamespace"])],
        prefix="sts",
        handlers={"GetCallerIdentity": operations.get_caller_identity, "AssumeRole": operations.assume_role},
        resource=lambda values, call: _PATH.sub(":role/", values.get("RoleArn") or "*"),
        invalid=_invalid,
        failure=_failure,
    )


_PATH = re.compile(r":role/.*/")
"""In a role's ARN: no part of its name, by which policies know it."""


class _Operations:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._identity = IdentityServiceStub(channel)

    async def get_caller_identity(self, values: Values, call: Call) -> dict[str, Any]:
        assert call.proof is not None
        principal = call.proof.principal
        return {"Arn": principal.arn, "UserId": principal.user_id, "Account": principal.account_id}

    async def assume_role(self, values: Values, call: Call) -> dict[str, Any]:
        if narrowing := [name for name in NARROWING if name in values]:
            # Passed over, they would leave a session that may more than was asked for.
            text = f"{narrowing[0]} is not served here: a session may what the policies of its role allow."
            raise AwsError("ValidationError", text)
        request = identity_pb2.AssumeRoleRequest(
            role_arn=values["RoleArn"],
            role_session_name=values["RoleSessionName"],
            duration_seconds=values.get("DurationSeconds", DEFAULT_DURATION_S),
        )
        answer = await self._identity.AssumeRole(request)
        return {
            "Credentials": {
                "AccessKeyId": answer.access_key_id,
                "SecretAccessKey": answer.secret_access_key,
                "SessionToken": answer.session_token,
                "Expiration": answer.expiration.ToDatetime(tzinfo=UTC).timestamp(),
            },
            "AssumedRoleUser": {"AssumedRoleId": answer.principal.user_id, "Arn": answer.principal.arn},
        }


def _invalid(problems: Problems) -> AwsError:
    return AwsError("ValidationError", problems.summary())


def _failure(error: BelvedereError) -> AwsError:
    match error:
        case NotFound() | Denied():
            # Like AWS: a role that is not there is not told from one that is not for the caller.
            return AwsError("AccessDenied", error.message, 403)
        case Invalid():
            return AwsError("ValidationError", error.message)
        case _:
            return AwsError("ServiceUnavailable", "Identity is not available at the moment. Try again.", 503)
