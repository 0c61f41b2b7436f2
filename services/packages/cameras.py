"""Cameras: made from a template job, handed out sealed to one device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from belvedere.chassis import outbox
from belvedere.chassis.context import caller
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.chassis.ids import new_id, random_id
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.chassis.tags import add_tags, check_tags
from belvedere.fleet import SealError, sealing
from belvedere.graph import camera_document, parse_package
from belvedere.v1 import common_pb2
from belvedere.v1 import packages_pb2 as pb
from services.packages import events, rules, store, wire
from services.packages.store import REGISTERED, CameraRow, PackageRow, TemplateJobRow, VersionRow
from services.packages.versions import VersionHandlers


class CameraHandlers(VersionHandlers):
    """CreateNodeFromTemplateJob, its describe and list, SealCamera."""

    async def CreateNodeFromTemplateJob(
        self, request: pb.CreateNodeFromTemplateJobRequest, context: Any
    ) -> pb.CreateNodeFromTemplateJobResponse:
        """Registers a camera at once: the job it answers with is done.

        The same name, version, address and description again is the same patch with new credentials: applications that
        use it get them without being deployed again. Anything else makes a new patch, the latest.
        """
        who, now = caller(), self.clock()
        name, version = request.output_package_name, request.output_package_version
        rules.check_names(name=name, version=version)
        if request.template_type != pb.TEMPLATE_TYPE_RTSP_CAMERA_STREAM:
            raise Invalid("TemplateType must be RTSP_CAMERA_STREAM.", fields=[("TemplateType", "RTSP_CAMERA_STREAM")])
        tags = check_tags(package_tags(request.job_tags))
        address = rules.camera_address(request.template_parameters)
        text = camera_document(
            name, version, request.node_description, interface=request.node_name, stream_url=address.stream_url
        )
        document = parse_package(text)
        job = TemplateJobRow(
            job_id=random_id(),
            account=who.account,
            region=who.region,
            node_name=request.node_name,
            node_description=request.node_description if request.HasField("node_description") else None,
            package_name=name,
            package_version=version,
            template_type="RTSP_CAMERA_STREAM",
            parameters=rules.masked_parameters(address.stream_url, request.template_parameters),
            job_tags=[{"resource_type": "PACKAGE", "tags": dict(item.tags)} for item in request.job_tags],
            status="SUCCEEDED",
            status_message="Node created successfully.",
            created=now,
            updated=now,
        )
        async with self.database.session() as session, session.begin():
            package = await store.find_package(session, who.account, who.region, name=name)
            if package is None:
                package = PackageRow(
                    package_id=new_id("package"),
                    account=who.account,
                    region=who.region,
                    name=name,
                    created=now,
                    tags=tags,
                )
                session.add(package)
                outbox.add(session, events.package_created(package))
                await session.flush()
            else:
                latest = await store.find_version(session, package.package_id, version, "")
                if latest is not None and not await self._is_camera(session, latest):
                    raise Conflict(
                        "PACKAGE_VERSION",
                        package.package_id,
                        f"{name} {version} is no camera: choose another package name.",
                    )
                package.tags = add_tags(package.tags, tags)
                session.add(package)
            row = VersionRow(
                package_id=package.package_id,
                version=version,
                patch=hashlib.sha256(text.encode()).hexdigest(),
                account=who.account,
                region=who.region,
                status=REGISTERED,
                registered=now,
                document=text,
                assets=[
                    {"name": asset.name, "type": "system", "digest": "", "size_bytes": 0, "descriptor": ""}
                    for asset in document.assets
                ],
            )
            await self.add_version(session, package, row, document, address, make_latest=True)
            session.add(job)
        return pb.CreateNodeFromTemplateJobResponse(job_id=job.job_id)

    async def _is_camera(self, session: Any, row: VersionRow) -> bool:
        return await session.get(CameraRow, (row.package_id, row.version, row.patch)) is not None

    async def DescribeNodeFromTemplateJob(
        self, request: pb.DescribeNodeFromTemplateJobRequest, context: Any
    ) -> pb.DescribeNodeFromTemplateJobResponse:
        who = caller()
        async with self.database.session(read_only=True) as session:
            row = await session.get(TemplateJobRow, request.job_id)
        if row is None or (row.account, row.region) != (who.account, who.region):
            raise NotFound("NODE_FROM_TEMPLATE_JOB", request.job_id)
        return wire.describe_job(row)

    async def ListNodeFromTemplateJobs(
        self, request: pb.ListNodeFromTemplateJobsRequest, context: Any
    ) -> pb.ListNodeFromTemplateJobsResponse:
        who = caller()
        size = page_size(request.max_results)
        after = decode_token(request.next_token, "ListNodeFromTemplateJobs")
        async with self.database.session(read_only=True) as session:
            found = await store.list_template_jobs(session, who.account, who.region, after, size + 1)
        rows, more = cut(found, size)
        token = None
        if more:
            cursor = {"created": rows[-1].created.isoformat(), "job_id": rows[-1].job_id}
            token = encode_token(cursor, "ListNodeFromTemplateJobs")
        return pb.ListNodeFromTemplateJobsResponse(
            node_from_template_jobs=[wire.job_item(row) for row in rows], next_token=token
        )

    async def SealCamera(self, request: pb.SealCameraRequest, context: Any) -> pb.SealCameraResponse:
        who, reference = caller(), request.reference
        async with self.database.session(read_only=True) as session:
            found = await self._registered(session, who.account, who.region, reference)
            camera = None
            if found is not None:
                package, row = found
                camera = await session.get(CameraRow, (package.package_id, row.version, row.patch))
        if camera is None:
            raise NotFound("CAMERA", f"{reference.name} {reference.version} {reference.patch_version}".strip())
        sealed = b""
        if camera.credentials:
            username, password = self.vault.unlock(camera.credentials)
            try:
                sealed = sealing.seal(request.seal_public_key, username, password)
            except SealError as error:
                raise Invalid(str(error), fields=[("SealPublicKey", str(error))]) from error
        return pb.SealCameraResponse(stream_url=camera.stream_url, sealed_credentials=sealed)


def package_tags(job_tags: Iterable[common_pb2.JobResourceTags]) -> dict[str, str]:
    """The tags of a job that are meant for the package it makes."""
    tags: dict[str, str] = {}
    for item in job_tags:
        if item.resource_type == common_pb2.JOB_RESOURCE_TYPE_PACKAGE:
            tags |= item.tags
    return tags
