"""Import jobs: a package version from an archive in a bucket, in the background, resumed after a restart.

A job changes nothing until the archive has been read and checked in full; then package, files and version are there at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict

from belvedere.blobs import BlobError, BlobNotFound
from belvedere.chassis import logs, outbox
from belvedere.chassis.context import caller
from belvedere.chassis.errors import BelvedereError, Conflict, FieldError, Invalid, NotFound
from belvedere.chassis.ids import new_id, random_id
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.chassis.tags import add_tags, check_tags
from belvedere.v1 import packages_pb2 as pb
from services.packages import events, importing, objects, rules, store, wire
from services.packages.cameras import CameraHandlers, package_tags
from services.packages.objects import ObjectRow
from services.packages.registering import Registration
from services.packages.store import FAILED, PENDING, REGISTERED, ImportJobRow, PackageRow, VersionRow

JOB = "PACKAGE_IMPORT_JOB"
SUCCEEDED = "SUCCEEDED"
STATUS_LIMIT = 2000
"""Characters of the problems in a StatusMessage."""

log = logs.get_logger(__name__)


class ImportFailed(Exception):
    """The job fails; the message becomes its StatusMessage."""


class ImportHandlers(CameraHandlers):
    """CreatePackageImportJob, its describe and list; `run_imports` does the work."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._asked = asyncio.Event()

    async def CreatePackageImportJob(
        self, request: pb.CreatePackageImportJobRequest, context: Any
    ) -> pb.CreatePackageImportJobResponse:
        who, now = caller(), self.clock()
        check_request(request, who.region)
        asked = MessageToDict(request, preserving_proto_field_name=True)
        async with self.database.session() as session, session.begin():
            before = await store.find_import_job(session, who.account, who.region, request.client_token)
            if before is not None and before.request != asked:
                raise Conflict(
                    JOB,
                    before.job_id,
                    f"ClientToken {request.client_token} was used with another request: {before.job_id}.",
                )
            if before is not None:
                return pb.CreatePackageImportJobResponse(job_id=before.job_id)
            job = ImportJobRow(
                job_id=random_id(),
                account=who.account,
                region=who.region,
                client_token=request.client_token,
                request=asked,
                status=PENDING,
                status_message="The import has not begun yet.",
                created=now,
                updated=now,
            )
            session.add(job)
        self._asked.set()
        return pb.CreatePackageImportJobResponse(job_id=job.job_id)

    async def DescribePackageImportJob(
        self, request: pb.DescribePackageImportJobRequest, context: Any
    ) -> pb.DescribePackageImportJobResponse:
        who = caller()
        async with self.database.session(read_only=True) as session:
            row = await session.get(ImportJobRow, request.job_id)
        if row is None or (row.account, row.region) != (who.account, who.region):
            raise NotFound(JOB, request.job_id)
        return wire.describe_import_job(row, request_of(row))

    async def ListPackageImportJobs(
        self, request: pb.ListPackageImportJobsRequest, context: Any
    ) -> pb.ListPackageImportJobsResponse:
        who = caller()
        size = page_size(request.max_results)
        after = decode_token(request.next_token, "ListPackageImportJobs")
        async with self.database.session(read_only=True) as session:
            found = await store.list_import_jobs(session, who.account, who.region, after, size + 1)
        rows, more = cut(found, size)
        token = None
        if more:
            cursor = {"created": rows[-1].created.isoformat(), "job_id": rows[-1].job_id}
            token = encode_token(cursor, "ListPackageImportJobs")
        return pb.ListPackageImportJobsResponse(
            package_import_jobs=[wire.import_job_item(row, request_of(row)) for row in rows], next_token=token
        )

    async def run_imports(self) -> None:
        """Does the jobs that are pending, one after the other, until cancelled. Jobs may be done twice: the result is the same."""
        while True:
            self._asked.clear()
            async with self.database.session(read_only=True) as session:
                jobs = await store.pending_import_jobs(session)
            for job in jobs:
                await self._run(job)
            if not jobs:
                await self._asked.wait()

    async def _run(self, job: ImportJobRow) -> None:
        try:
            await self._import(job)
            return
        except ImportFailed as error:
            message = str(error)
        except BelvedereError as error:
            message = error.message
        except BlobNotFound:
            message = "the object was deleted while it was read"
        except BlobError as error:
            log.error("import failed", job_id=job.job_id, error=str(error))
            message = "the store failed; the log of the packages service says why. Start another job"
        except Exception:
            # A job that can not end would keep all others from being done.
            log.exception("import failed", job_id=job.job_id)
            message = "an internal error; the log of the packages service says more. Start another job"
        async with self.database.session() as session, session.begin():
            row = await session.get(ImportJobRow, job.job_id)
            if row is not None and row.status == PENDING:
                row.status, row.status_message, row.updated = FAILED, f"The import failed: {message}", self.clock()
                session.add(row)

    async def _import(self, job: ImportJobRow) -> None:
        request = request_of(job)
        wanted = request.output_config.package_version_output_config
        location = request.input_config.package_version_input_config.s3_location
        async with self.database.session(read_only=True) as session:
            archive = await objects.find_object(
                session, job.account, job.region, location.bucket_name, location.object_key
            )
        if archive is None:
            raise ImportFailed(f"nothing is stored at s3://{location.bucket_name}/{location.object_key}")
        try:
            patch, files = await self._unpack(job, archive.digest, wanted.package_name, wanted.package_version)
        except importing.ArchiveInvalid as error:
            raise ImportFailed(f"s3://{location.bucket_name}/{location.object_key}: {error}") from error
        found = await self.reader.read(
            job.account, job.region, wanted.package_name, wanted.package_version, patch, staged=files
        )
        if found.problems:
            raise ImportFailed(rules.status_text(found.problems, STATUS_LIMIT))
        await self._register(job, request, patch, files, found)

    async def _unpack(
        self, job: ImportJobRow, digest: str, name: str, version: str
    ) -> tuple[str, dict[str, ObjectRow]]:
        """Stores the archive's files as blobs: the patch version, and what is to stand at which key."""
        await self.reader.blobs.renew(digest)  # readable to the end, whoever deletes the object meanwhile
        with await self.reader.blobs.reader(digest) as file:
            archive = await asyncio.to_thread(
                importing.PackageArchive, file, job.account, name, version, self.reader.limit_bytes
            )
            patch = hashlib.sha256(archive.document).hexdigest()
            manifest = rules.manifest_key(job.account, name, version, patch)
            files = {manifest: await self._store(job, manifest, iter([archive.document]))}
            for uri in archive.files:
                key = rules.binary_key(job.account, name, uri)
                files[key] = await self._store(job, key, archive.chunks(uri))
        return patch, files

    async def _store(self, job: ImportJobRow, key: str, content: Iterator[bytes]) -> ObjectRow:
        md5 = hashlib.md5()  # S3's ETag, no defence

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await asyncio.to_thread(next, content, b""):
                md5.update(chunk)
                yield chunk

        blob = await self.reader.blobs.put_stream(chunks())
        return ObjectRow(
            account=job.account,
            region=job.region,
            bucket=rules.bucket_name(job.account, job.region),
            key=key,
            digest=blob.digest,
            size_bytes=blob.size_bytes,
            etag=md5.hexdigest(),
            content_type="application/json" if key.endswith(".json") else "binary/octet-stream",
            modified=self.clock(),
        )

    async def _register(
        self,
        job: ImportJobRow,
        request: pb.CreatePackageImportJobRequest,
        patch: str,
        files: Mapping[str, ObjectRow],
        found: Registration,
    ) -> None:
        """Package, files and version, and the job's end: all in one transaction."""
        wanted, now = request.output_config.package_version_output_config, self.clock()
        name, version, tags = wanted.package_name, wanted.package_version, package_tags(request.job_tags)
        assert found.document is not None, "a registration without problems has a document"
        async with self.database.session() as session, session.begin():
            row = await session.get(ImportJobRow, job.job_id)
            if row is None or row.status != PENDING:
                return
            package = await store.find_package(session, job.account, job.region, name=name)
            if package is None:
                package = PackageRow(
                    package_id=new_id("package"), account=job.account, region=job.region, name=name, created=now
                )
                outbox.add(session, events.package_created(package))
            package.tags = add_tags(package.tags, tags)
            session.add(package)
            await session.flush()
            for file in files.values():
                await session.merge(file)
            present = await store.find_version(session, package.package_id, version, patch)
            if present is None or present.status != REGISTERED:
                registered = VersionRow(
                    package_id=package.package_id, version=version, patch=patch, account=job.account,
                    region=job.region, status=REGISTERED, registered=now, document=found.document_text,
                    assets=found.assets,
                )  # fmt: skip
                await self.add_version(session, package, registered, found.document, found.camera, wanted.mark_latest)
            elif wanted.mark_latest:
                await store.mark_latest(session, package.package_id, version, patch)
            row.package_id, row.patch = package.package_id, patch
            row.status, row.status_message, row.updated = SUCCEEDED, "Package version imported successfully.", now
            session.add(row)


def request_of(row: ImportJobRow) -> pb.CreatePackageImportJobRequest:
    """What was asked for."""
    return ParseDict(row.request, pb.CreatePackageImportJobRequest(), ignore_unknown_fields=True)


def check_request(request: pb.CreatePackageImportJobRequest, region: str) -> None:
    """Raises Invalid naming everything that is wrong."""
    if request.job_type == pb.PACKAGE_IMPORT_JOB_TYPE_MARKETPLACE_NODE_PACKAGE_VERSION:
        text = "there is no marketplace here; NODE_PACKAGE_VERSION imports an archive from a bucket"
        raise Invalid(f"MARKETPLACE_NODE_PACKAGE_VERSION: {text}.", fields=[("JobType", text)])
    wrong: list[FieldError] = []
    if request.job_type != pb.PACKAGE_IMPORT_JOB_TYPE_NODE_PACKAGE_VERSION:
        wrong.append(("JobType", "must be NODE_PACKAGE_VERSION"))
    if not request.client_token:
        wrong.append(("ClientToken", "is missing"))
    location = request.input_config.package_version_input_config.s3_location
    if not location.bucket_name or not location.object_key:
        wrong.append(("InputConfig.PackageVersionInputConfig", "is missing: the bucket and key of an archive"))
    elif location.region and location.region != region:
        path = "InputConfig.PackageVersionInputConfig.S3Location.Region"
        wrong.append((path, f"is {location.region}: only archives in {region} can be imported"))
    if not request.output_config.HasField("package_version_output_config"):
        wrong.append(("OutputConfig.PackageVersionOutputConfig", "is missing: the package's name and version"))
    if wrong:
        raise Invalid("; ".join(f"{path} {text}" for path, text in wrong), fields=wrong)
    wanted = request.output_config.package_version_output_config
    rules.check_names(name=wanted.package_name, version=wanted.package_version)
    check_tags(package_tags(request.job_tags))
