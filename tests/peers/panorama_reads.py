"""Calls of the Panorama API whose parsed answers two clients must agree on. Runs as a script, in any Python with boto3.

Prints a JSON list of [operation, arguments, answer or error]; endpoint, keys and region come from the environment.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

NO_CHECKS = Config(parameter_validation=False, retries={"total_max_attempts": 1})


def calls(device: str, package: str, arn: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("describe_device", {"DeviceId": device}),
        ("list_devices", {"NameFilter": "judged"}),
        ("list_devices", {"MaxResults": 26}),
        ("list_devices", {"SortBy": "SIZE"}),
        ("describe_package", {"PackageId": "packageName/judged"}),
        ("describe_package", {"PackageId": package}),
        ("describe_package", {"PackageId": "packageName/none"}),
        ("list_packages", {}),
        ("list_nodes", {"Category": "MEDIA_SOURCE"}),
        ("describe_node", {"NodeId": "none"}),
        ("list_node_from_template_jobs", {}),
        ("list_tags_for_resource", {"ResourceArn": arn}),
        ("list_tags_for_resource", {"ResourceArn": "none"}),
        ("list_application_instances", {"StatusFilter": "DEPLOYMENT_SUCCEEDED"}),
        ("describe_application_instance", {"ApplicationInstanceId": "none"}),
        (
            "create_application_instance",
            {"DefaultRuntimeContextDevice": device, "ManifestPayload": {"PayloadData": "{"}},
        ),
        ("provision_device", {"Name": "judged"}),
        ("provision_device", {"Name": "not a name", "Tags": {"k": "v" * 257}}),
        ("create_job_for_devices", {"DeviceIds": [], "JobType": "OTA"}),
        ("list_devices_jobs", {"DeviceId": device}),
        ("describe_package_import_job", {"JobId": "none"}),
        ("register_package_version", {"PackageId": package, "PackageVersion": "one", "PatchVersion": "A"}),
    ]


def main() -> None:
    client = boto3.client("panorama", config=NO_CHECKS)
    results = []
    for operation, arguments in calls(*sys.argv[1:4]):
        try:
            answer = getattr(client, operation)(**arguments)
        except ClientError as error:
            answer = error.response
        status = answer.pop("ResponseMetadata")["HTTPStatusCode"]
        results.append([operation, arguments, status, answer])
    print(json.dumps(results, default=str))


if __name__ == "__main__":
    main()
