"""Rows to messages of the packages API. Nothing is decided here."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.chassis.ids import arn
from belvedere.v1 import common_pb2
from belvedere.v1 import packages_pb2 as pb
from services.packages import rules
from services.packages.store import (
    PENDING,
    REGISTERED,
    REGISTERING,
    ImportJobRow,
    NodeRow,
    PackageRow,
    TemplateJobRow,
    VersionRow,
)

CATEGORY = {
    "business_logic": pb.NODE_CATEGORY_BUSINESS_LOGIC,
    "ml_model": pb.NODE_CATEGORY_ML_MODEL,
    "media_source": pb.NODE_CATEGORY_MEDIA_SOURCE,
    "media_sink": pb.NODE_CATEGORY_MEDIA_SINK,
}
CATEGORY_OF = {value: name for name, value in CATEGORY.items()}
PORT_TYPE = {
    "boolean": pb.PORT_TYPE_BOOLEAN,
    "string": pb.PORT_TYPE_STRING,
    "int32": pb.PORT_TYPE_INT32,
    "float32": pb.PORT_TYPE_FLOAT32,
    "media": pb.PORT_TYPE_MEDIA,
}
VERSION_STATUS = {
    REGISTERED: pb.PACKAGE_VERSION_STATUS_REGISTER_COMPLETED,
    REGISTERING: pb.PACKAGE_VERSION_STATUS_REGISTER_PENDING,
    "FAILED": pb.PACKAGE_VERSION_STATUS_FAILED,
}


def timestamp(moment: datetime) -> Timestamp:
    """A moment as protobuf has it."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def package_arn(package_id: str, account: str, region: str) -> str:
    """`arn:aws:panorama:<region>:<account>:package/<id>`."""
    return arn("panorama", region, account, f"package/{package_id}")


def storage_location(package: PackageRow) -> pb.StorageLocation:
    """Where the package's files go."""
    prefix = rules.package_prefix(package.account, package.name)
    return pb.StorageLocation(
        bucket=rules.bucket_name(package.account, package.region),
        binary_prefix_location=f"{prefix}/binaries",
        manifest_prefix_location=f"{prefix}/manifests",
        generated_prefix_location=f"{prefix}/generated",
        repo_prefix_location=f"{prefix}/repo",
    )


def describe_package(package: PackageRow) -> pb.DescribePackageResponse:
    """DescribePackage's answer."""
    return pb.DescribePackageResponse(
        arn=package_arn(package.package_id, package.account, package.region),
        created_time=timestamp(package.created),
        package_id=package.package_id,
        package_name=package.name,
        storage_location=storage_location(package),
        tags=package.tags,
    )


def package_item(package: PackageRow) -> pb.PackageListItem:
    """An entry of ListPackages."""
    return pb.PackageListItem(
        arn=package_arn(package.package_id, package.account, package.region),
        created_time=timestamp(package.created),
        package_id=package.package_id,
        package_name=package.name,
        tags=package.tags,
    )


def describe_version(package: PackageRow, row: VersionRow) -> pb.DescribePackageVersionResponse:
    """DescribePackageVersion's answer."""
    return pb.DescribePackageVersionResponse(
        is_latest_patch=row.latest,
        owner_account=package.account,
        package_arn=package_arn(package.package_id, package.account, package.region),
        package_id=package.package_id,
        package_name=package.name,
        package_version=row.version,
        patch_version=row.patch,
        registered_time=timestamp(row.registered) if row.status == REGISTERED else None,
        status=VERSION_STATUS[row.status],
        status_description=row.status_description or None,
    )


def node_item(row: NodeRow) -> pb.Node:
    """An entry of ListNodes."""
    return pb.Node(
        category=CATEGORY[row.category],
        created_time=timestamp(row.created),
        description=row.description or None,
        name=row.name,
        node_id=row.node_id,
        owner_account=row.account,
        package_arn=package_arn(row.package_id, row.account, row.region),
        package_id=row.package_id,
        package_name=row.package_name,
        package_version=row.version,
        patch_version=row.patch,
    )


def describe_node(row: NodeRow) -> pb.DescribeNodeResponse:
    """DescribeNode's answer."""
    return pb.DescribeNodeResponse(
        asset_name=row.asset_name or None,
        category=CATEGORY[row.category],
        created_time=timestamp(row.created),
        description=row.description,
        last_updated_time=timestamp(row.updated),
        name=row.name,
        node_id=row.node_id,
        node_interface=pb.NodeInterface(
            inputs=[
                pb.NodeInputPort(
                    name=port["name"],
                    type=PORT_TYPE[port["type"]],
                    description=port["description"] or None,
                    # The API has no empty default (PortDefaultValue: 1..255).
                    default_value=None if port["default"] in (None, "") else rules.default_text(port["default"])[:255],
                    max_connections=port["max_connections"],
                )
                for port in row.inputs
            ],
            outputs=[
                pb.NodeOutputPort(
                    name=port["name"], type=PORT_TYPE[port["type"]], description=port["description"] or None
                )
                for port in row.outputs
            ],
        ),
        owner_account=row.account,
        package_arn=package_arn(row.package_id, row.account, row.region),
        package_id=row.package_id,
        package_name=row.package_name,
        package_version=row.version,
        patch_version=row.patch,
    )


JOB_STATUS = {
    "SUCCEEDED": pb.NODE_FROM_TEMPLATE_JOB_STATUS_SUCCEEDED,
    "FAILED": pb.NODE_FROM_TEMPLATE_JOB_STATUS_FAILED,
}


def describe_job(row: TemplateJobRow) -> pb.DescribeNodeFromTemplateJobResponse:
    """DescribeNodeFromTemplateJob's answer."""
    return pb.DescribeNodeFromTemplateJobResponse(
        created_time=timestamp(row.created),
        job_id=row.job_id,
        job_tags=[
            common_pb2.JobResourceTags(resource_type=common_pb2.JOB_RESOURCE_TYPE_PACKAGE, tags=item["tags"])
            for item in row.job_tags
        ],
        last_updated_time=timestamp(row.updated),
        node_description=row.node_description,
        node_name=row.node_name,
        output_package_name=row.package_name,
        output_package_version=row.package_version,
        status=JOB_STATUS[row.status],
        status_message=row.status_message,
        template_parameters=row.parameters,
        template_type=pb.TemplateType.Value(f"TEMPLATE_TYPE_{row.template_type}"),
    )


def job_item(row: TemplateJobRow) -> pb.NodeFromTemplateJob:
    """An entry of ListNodeFromTemplateJobs."""
    return pb.NodeFromTemplateJob(
        created_time=timestamp(row.created),
        job_id=row.job_id,
        node_name=row.node_name,
        status=JOB_STATUS[row.status],
        status_message=row.status_message,
        template_type=pb.TemplateType.Value(f"TEMPLATE_TYPE_{row.template_type}"),
    )


IMPORT_STATUS = {
    PENDING: pb.PACKAGE_IMPORT_JOB_STATUS_PENDING,
    "SUCCEEDED": pb.PACKAGE_IMPORT_JOB_STATUS_SUCCEEDED,
    "FAILED": pb.PACKAGE_IMPORT_JOB_STATUS_FAILED,
}


def describe_import_job(
    row: ImportJobRow, request: pb.CreatePackageImportJobRequest
) -> pb.DescribePackageImportJobResponse:
    """DescribePackageImportJob's answer; what the job made is empty until it has."""
    output = pb.PackageImportJobOutput(output_s3_location=pb.OutPutS3Location())
    if row.patch:
        wanted = request.output_config.package_version_output_config
        output.package_id, output.package_version, output.patch_version = (
            row.package_id,
            wanted.package_version,
            row.patch,
        )
        output.output_s3_location.bucket_name = rules.bucket_name(row.account, row.region)
        output.output_s3_location.object_key = rules.manifest_key(
            row.account, wanted.package_name, wanted.package_version, row.patch
        )
    return pb.DescribePackageImportJobResponse(
        client_token=row.client_token,
        created_time=timestamp(row.created),
        input_config=request.input_config,
        job_id=row.job_id,
        job_tags=request.job_tags,
        job_type=request.job_type,
        last_updated_time=timestamp(row.updated),
        output=output,
        output_config=request.output_config,
        status=IMPORT_STATUS[row.status],
        status_message=row.status_message,
    )


def import_job_item(row: ImportJobRow, request: pb.CreatePackageImportJobRequest) -> pb.PackageImportJob:
    """An entry of ListPackageImportJobs."""
    return pb.PackageImportJob(
        created_time=timestamp(row.created),
        job_id=row.job_id,
        job_type=request.job_type,
        last_updated_time=timestamp(row.updated),
        status=IMPORT_STATUS[row.status],
        status_message=row.status_message,
    )
