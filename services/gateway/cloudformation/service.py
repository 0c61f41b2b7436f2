"""CloudFormation behind the front door: what `aws cloudformation deploy` and AWS's sample scripts call.

A stack of roles and alarms is made while its request is answered: there is nothing to wait for, and waiters are content at once.
Anything else in a template is refused before anything is made. Knows no resource's kind.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc

from belvedere.blobs import BlobStore
from belvedere.chassis.errors import BelvedereError
from belvedere.chassis.ids import arn
from services.gateway.cloudformation.resources import ROLE, kinds, new_name
from services.gateway.cloudformation.stacks import REVIEW, ChangeSet, Stack, Stacks
from services.gateway.cloudformation.template import Scope, Template, TemplateError, evaluate, parse
from services.gateway.codecs import QueryCodec
from services.gateway.errors import AwsError, GatewayError
from services.gateway.message import Call
from services.gateway.model_service import ModelService, Values, load_model
from services.gateway.validation import Problems

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_NAMED_IAM")


def create(channel: grpc.aio.Channel, blobs: BlobStore, clock: Callable[[], datetime]) -> ModelService:
    """CloudFormation over identity, logs_metrics and the index of objects."""
    model = load_model("cloudformation")
    operations = _Operations(channel, blobs, clock)
    return ModelService(
        model=model,
        codecs=[QueryCodec(model.metadata["xmlNamespace"])],
        prefix="cloudformation",
        handlers={
            "CreateStack": operations.create_stack,
            "CreateChangeSet": operations.create_change_set,
            "DescribeChangeSet": operations.describe_change_set,
            "ExecuteChangeSet": operations.execute_change_set,
            "DeleteChangeSet": operations.delete_change_set,
            "DescribeStacks": operations.describe_stacks,
            "DescribeStackEvents": operations.describe_events,
            "DeleteStack": operations.delete_stack,
            "GetTemplateSummary": operations.get_template_summary,
        },
        resource=_resource,
        invalid=lambda problems: AwsError("ValidationError", _invalid_text(problems)),
        failure=_failure,
    )


class _Operations:
    def __init__(self, channel: grpc.aio.Channel, blobs: BlobStore, clock: Callable[[], datetime]) -> None:
        self._stacks, self._clock = Stacks(channel, blobs), clock
        self._kinds = kinds(channel)

    async def create_stack(self, values: Values, call: Call) -> dict[str, Any]:
        if await self._stacks.find(call, values["StackName"]) is not None:
            raise AwsError("AlreadyExistsException", f"Stack [{values['StackName']}] already exists")
        stack = self._new(call, values["StackName"])
        change = self._change(call, stack, "create-stack", "CREATE", values)
        await self._stacks.put(call, stack)
        await self._apply(call, stack, change)
        return {"StackId": stack.id}

    async def create_change_set(self, values: Values, call: Call) -> dict[str, Any]:
        name, kind = values["StackName"], values.get("ChangeSetType", "UPDATE")
        stack = await self._stacks.find(call, name)
        if kind == "CREATE":
            if stack is not None and stack.status != REVIEW:
                raise AwsError("ValidationError", f"Stack [{name}] already exists and cannot be created again")
            stack = stack or self._new(call, name)
        elif stack is None or stack.status == REVIEW:
            raise AwsError("ValidationError", f"Stack [{name}] does not exist")
        if values["ChangeSetName"] in stack.change_sets:
            raise AwsError("AlreadyExistsException", f"ChangeSet {values['ChangeSetName']} already exists")
        change = self._change(call, stack, values["ChangeSetName"], kind, values)
        if kind == "UPDATE" and (change.template, change.parameters) == (stack.template, stack.parameters):
            change.status, change.reason, change.execution = "FAILED", NO_CHANGES, "UNAVAILABLE"
        await self._stacks.put(call, stack)
        return {"Id": change.id, "StackId": stack.id}

    async def describe_change_set(self, values: Values, call: Call) -> dict[str, Any]:
        stack, change = await self._found_change(values, call)
        template = parse(change.template)
        told: dict[str, Any] = {
            "ChangeSetName": change.name,
            "ChangeSetId": change.id,
            "StackId": stack.id,
            "StackName": stack.name,
            "Status": change.status,
            "StatusReason": change.reason or None,
            "ExecutionStatus": change.execution,
            "CreationTime": change.created,
            "Description": change.description or None,
            "Capabilities": change.capabilities,
            "Parameters": _parameters(change.parameters),
        }
        gone = [(name, made.type, "Remove") for name, made in stack.resources.items() if name not in template.resources]
        kept = [
            (name, template.resources[name].type, "Modify" if name in stack.resources else "Add")
            for name in template.order
        ]
        changes = [
            {"LogicalResourceId": name, "ResourceType": kind, "Action": action} for name, kind, action in (*kept, *gone)
        ]
        failed = change.status == "FAILED"
        told["Changes"] = [] if failed else [{"Type": "Resource", "ResourceChange": entry} for entry in changes]
        return {key: value for key, value in told.items() if value is not None}

    async def execute_change_set(self, values: Values, call: Call) -> dict[str, Any]:
        stack, change = await self._found_change(values, call)
        if change.execution != "AVAILABLE":
            text = f"ChangeSet [{change.id}] cannot be executed in its current status of [{change.status}]"
            raise AwsError("InvalidChangeSetStatus", text)
        await self._apply(call, stack, change)
        return {}

    async def delete_change_set(self, values: Values, call: Call) -> dict[str, Any]:
        stack, change = await self._found_change(values, call)
        del stack.change_sets[change.name]
        await self._stacks.put(call, stack)
        return {}

    async def describe_stacks(self, values: Values, call: Call) -> dict[str, Any]:
        if "StackName" in values:
            return {"Stacks": [_stack(await self._found(values["StackName"], call))]}
        return {"Stacks": [_stack(stack) for stack in await self._stacks.all(call)]}

    async def describe_events(self, values: Values, call: Call) -> dict[str, Any]:
        stack = await self._found(values["StackName"], call)
        return {"StackEvents": [{**event, "StackId": stack.id, "StackName": stack.name} for event in stack.events]}

    async def get_template_summary(self, values: Values, call: Call) -> dict[str, Any]:
        stack = await self._found(values["StackName"], call) if "StackName" in values else None
        template = self._template(stack.template if stack else values.get("TemplateBody", ""), values)
        declared = [
            {
                "ParameterKey": name,
                "ParameterType": str(given.get("Type", "String")),
                "NoEcho": given.get("NoEcho") == "true",
                **({"DefaultValue": str(given["Default"])} if "Default" in given else {}),
            }
            for name, given in template.parameters.items()
        ]
        types = sorted({resource.type for resource in template.resources.values()})
        needed = _needed_capability(template)
        return {
            "Parameters": declared,
            "ResourceTypes": types,
            "Capabilities": [needed] if needed else [],
            **({"Description": template.description} if template.description else {}),
        }

    async def delete_stack(self, values: Values, call: Call) -> dict[str, Any]:
        stack = await self._stacks.find(call, values["StackName"])
        if stack is None:
            return {}
        try:
            await self._delete(call, stack, list(stack.resources))
        except (GatewayError, BelvedereError) as error:
            self._note(stack, "DELETE_FAILED", error.message)
            await self._stacks.put(call, stack)
            return {}
        await self._stacks.remove(call, stack)
        return {}

    async def _found(self, name: str, call: Call) -> Stack:
        stack = await self._stacks.find(call, name)
        if stack is None:
            raise AwsError("ValidationError", f"Stack with id {name} does not exist")
        return stack

    async def _found_change(self, values: Values, call: Call) -> tuple[Stack, ChangeSet]:
        asked = values["ChangeSetName"]
        if "StackName" in values:
            stacks = [await self._found(values["StackName"], call)]
        else:
            stacks = await self._stacks.all(call) if asked.startswith("arn:") else []
        for stack in stacks:
            for change in stack.change_sets.values():
                if asked in (change.name, change.id):
                    return stack, change
        raise AwsError("ChangeSetNotFound", f"ChangeSet [{asked}] does not exist", 404)

    def _new(self, call: Call, name: str) -> Stack:
        return Stack(name, self._arn(call, f"stack/{name}"), REVIEW, self._now())

    def _change(self, call: Call, stack: Stack, name: str, kind: str, values: Values) -> ChangeSet:
        """A change set of a request, in the stack. Raises AwsError where its template is no good."""
        text = stack.template if values.get("UsePreviousTemplate") else values.get("TemplateBody", "")
        given = {}
        for entry in values.get("Parameters", []):
            key = entry["ParameterKey"]
            previous = entry.get("UsePreviousValue") and key in stack.parameters
            given[key] = stack.parameters[key] if previous else entry.get("ParameterValue", "")
        template = self._template(text, values)
        try:
            parameters = template.values(given)
        except TemplateError as error:
            raise AwsError("ValidationError", str(error)) from error
        capabilities, needed = values.get("Capabilities", []), _needed_capability(template)
        if needed and not set(CAPABILITIES[CAPABILITIES.index(needed) :]) & set(capabilities):
            raise AwsError("InsufficientCapabilitiesException", f"Requires capabilities : [{needed}]")
        made = ChangeSet(
            name=name,
            id=self._arn(call, f"changeSet/{name}"),
            kind=kind,
            template=text,
            parameters=parameters,
            capabilities=list(capabilities),
            tags=list(values.get("Tags", [])),
            created=self._now(),
            description=values.get("Description", ""),
        )
        stack.change_sets[name] = made
        return made

    def _template(self, text: str, values: Values) -> Template:
        """Raises AwsError."""
        if "TemplateURL" in values:
            raise AwsError("ValidationError", "TemplateURL is not served here: pass the template as TemplateBody.")
        try:
            template = parse(text)
        except TemplateError as error:
            raise AwsError("ValidationError", str(error)) from error
        if unknown := sorted({resource.type for resource in template.resources.values()} - set(self._kinds)):
            raise AwsError("ValidationError", f"Resource types that are not served here: {', '.join(unknown)}")
        return template

    async def _apply(self, call: Call, stack: Stack, change: ChangeSet) -> None:
        """Makes of the stack what a change set says; what came of it stands in the stack."""
        verb = change.kind
        template = parse(change.template)
        try:
            await self._make(call, stack, template, change)
            await self._delete(call, stack, [name for name in stack.resources if name not in template.resources])
        except (TemplateError, GatewayError, BelvedereError) as error:
            reason = str(error) if isinstance(error, TemplateError) else error.message
            if verb == "CREATE":
                await self._roll_back(call, stack, reason)
            else:
                self._note(stack, "UPDATE_FAILED", reason)
        else:
            stack.template, stack.parameters = change.template, change.parameters
            stack.capabilities, stack.tags = change.capabilities, change.tags or stack.tags
            stack.description = template.description
            self._note(stack, f"{verb}_COMPLETE", "")
        stack.updated = self._now() if verb == "UPDATE" else None
        stack.change_sets = {}
        await self._stacks.put(call, stack)

    async def _roll_back(self, call: Call, stack: Stack, reason: str) -> None:
        try:
            await self._delete(call, stack, list(stack.resources))
        except (GatewayError, BelvedereError) as error:
            self._note(stack, "ROLLBACK_FAILED", f"{reason} Then: {error.message}")
        else:
            self._note(stack, "ROLLBACK_COMPLETE", reason)

    async def _make(self, call: Call, stack: Stack, template: Template, change: ChangeSet) -> None:
        pseudo = {
            "AWS::AccountId": call.who.account,
            "AWS::Region": call.who.region,
            "AWS::StackName": stack.name,
            "AWS::StackId": stack.id,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
        }
        scope = Scope({**pseudo, **change.parameters})
        for name in template.order:
            resource = template.resources[name]
            before = stack.resources.get(name)
            if before is not None and before.type != resource.type:
                raise TemplateError(f"Update of resource type is not permitted: {name}")
            try:
                properties = evaluate(resource.properties, scope)
                made = await self._kinds[resource.type].make(call, new_name(stack.name, name), properties, before)
            except (TemplateError, GatewayError, BelvedereError) as error:
                self._event(stack, f"{change.kind}_FAILED", str(error), name, resource.type)
                raise
            stack.resources[name] = made
            scope.refs[name] = made.physical_id
            scope.attributes |= {(name, attribute): value for attribute, value in made.attributes.items()}
            self._event(stack, f"{change.kind}_COMPLETE", "", name, resource.type, made.physical_id)
        stack.outputs = [
            {
                "OutputKey": key,
                "OutputValue": str(evaluate(output["Value"], scope)),
                "Description": output.get("Description", ""),
            }
            for key, output in template.outputs.items()
        ]

    async def _delete(self, call: Call, stack: Stack, names: list[str]) -> None:
        for name in reversed(names):
            made = stack.resources[name]
            await self._kinds[made.type].delete(call, made)
            self._event(stack, "DELETE_COMPLETE", "", name, made.type, made.physical_id)
            del stack.resources[name]

    def _note(self, stack: Stack, status: str, reason: str) -> None:
        stack.status, stack.reason = status, reason
        self._event(stack, status, reason, stack.name, "AWS::CloudFormation::Stack", stack.id)

    def _event(self, stack: Stack, status: str, reason: str, name: str, kind: str, physical_id: str = "") -> None:
        event: dict[str, Any] = {
            "EventId": str(uuid.uuid4()),
            "LogicalResourceId": name,
            "PhysicalResourceId": physical_id,
            "ResourceType": kind,
            "ResourceStatus": status,
            "Timestamp": self._now(),
        }
        stack.events.insert(0, event | ({"ResourceStatusReason": reason} if reason else {}))

    def _arn(self, call: Call, resource: str) -> str:
        return arn("cloudformation", call.who.region, call.who.account, f"{resource}/{uuid.uuid4()}")

    def _now(self) -> float:
        return self._clock().timestamp()


def _needed_capability(template: Template) -> str:
    """What a caller has to acknowledge; empty: nothing."""
    roles = [resource for resource in template.resources.values() if resource.type == ROLE]
    return CAPABILITIES[any("RoleName" in role.properties for role in roles)] if roles else ""


def _resource(values: Values, call: Call) -> str:
    name = values.get("StackName") or "*"
    if name.startswith("arn:"):
        return str(name)
    return arn("cloudformation", call.who.region, call.who.account, f"stack/{name}/*")


def _stack(stack: Stack) -> dict[str, Any]:
    told = {
        "StackId": stack.id,
        "StackName": stack.name,
        "Description": stack.description or None,
        "StackStatus": stack.status,
        "StackStatusReason": stack.reason or None,
        "CreationTime": stack.created,
        "LastUpdatedTime": stack.updated,
        "DisableRollback": False,
        "Parameters": _parameters(stack.parameters),
        "Outputs": [{key: value for key, value in output.items() if value} for output in stack.outputs],
        "Tags": stack.tags,
        "Capabilities": stack.capabilities,
    }
    return {key: value for key, value in told.items() if value is not None}


def _parameters(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]


def _invalid_text(problems: Problems) -> str:
    return f"{len(problems.found)} validation errors detected: {problems.summary()}"


def _failure(error: BelvedereError) -> AwsError:
    return AwsError("ServiceUnavailable", f"A part of the service did not do this: {error.message}", 503)
