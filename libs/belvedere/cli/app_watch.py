"""`belvedere app watch`: where a deployed application's video is seen, with what opens it.

The AWS API has no word for video: this asks the cloud side over the owner's socket, as `belvedere console` does.
"""

from __future__ import annotations

import argparse

import grpc

from belvedere.chassis.paths import run_dir
from belvedere.cli.cloud import CloudAccess, login_url
from belvedere.cli.errors import CliError
from belvedere.cli.owner import Identity, add_data, moment
from belvedere.v1 import deployments_pb2, registry_pb2
from belvedere.v1.deployments_pb2_grpc import DeploymentsServiceStub
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub

_GONE = deployments_pb2.APPLICATION_INSTANCE_STATUS_REMOVAL_SUCCEEDED


def add_watch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments, and its `run`."""
    parser.add_argument("instance", metavar="INSTANCE", help="application instance, by id or name")
    add_data(parser)
    parser.set_defaults(run=watch)


def watch(options: argparse.Namespace) -> int:
    """Prints the addresses: RTSP with the viewer's password, the live page, the WebSocket with its token."""
    access = CloudAccess.load(options.data)
    with grpc.insecure_channel(f"unix:{run_dir(options.data) / 'grpc.sock'}") as channel:
        found = _instance(Identity(options.data, channel, access, DeploymentsServiceStub(channel)), options.instance)
        device_id = found.default_runtime_context_device
        credentials = Identity(options.data, channel, access, RegistryServiceStub(channel)).ask(
            registry_pb2.CreateViewerCredentialsRequest(device_id=device_id)
        )
    outputs = [
        output for output in credentials.outputs if output.application_instance_id == found.application_instance_id
    ]
    if not outputs:
        raise CliError(
            f"{device_id} reports no video of {found.name} ({found.application_instance_id}): it is there once the "
            "application runs, if its graph has a display"
        )
    user = f"{credentials.rtsp_username}:{credentials.rtsp_password}"
    for output in outputs:
        print(f"video      {output.rtsp_url.replace('rtsp://', f'rtsp://{user}@', 1)}")
        if output.websocket_url:
            print(f"websocket  {output.websocket_url}  (until {moment(credentials.expires_at)})")
    print(f"browser    {login_url(options.data)}  (good once, for five minutes)")
    return 0


def _instance(deployments: Identity, named: str) -> deployments_pb2.ApplicationInstance:
    """The newest of this id or name that is not removed. Raises CliError."""
    found: list[deployments_pb2.ApplicationInstance] = []
    token: str | None = None
    while True:
        answer = deployments.ask(deployments_pb2.ListApplicationInstancesRequest(next_token=token))
        found += [
            instance
            for instance in answer.application_instances
            if named in (instance.application_instance_id, instance.name) and instance.status != _GONE
        ]
        if not answer.next_token:
            break
        token = answer.next_token
    if not found:
        raise CliError(
            f'no application instance is named "{named}": `aws panorama list-application-instances` lists them'
        )
    return max(found, key=lambda instance: instance.created_time.ToNanoseconds())
