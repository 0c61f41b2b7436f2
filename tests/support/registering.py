"""Uploads and registers packages as the AWS tools do, straight through gRPC.

patch = await Uploader(cloud).register(graphs.code_package(), b"archive")
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from belvedere.chassis.errors import Conflict
from belvedere.v1 import packages_pb2 as pb
from belvedere.v1 import packages_pb2_grpc, storage_pb2, storage_pb2_grpc
from tests.support import graphs
from tests.support.archives import tar_gz
from tests.support.cloud import ACCOUNT, REGION, RunningCloud


class Uploader:
    """Acts as the present caller, in account ACCOUNT."""

    bucket = f"panorama-{ACCOUNT}-{REGION}"

    def __init__(self, cloud: RunningCloud) -> None:
        self._cloud = cloud
        self._packages = packages_pb2_grpc.PackagesServiceStub(cloud.channel)
        self._storage = storage_pb2_grpc.StorageServiceStub(cloud.channel)

    async def put(self, key: str, data: bytes) -> None:
        """Stores an object."""
        blob = await self._cloud.runtime.blobs.put_bytes(data)
        stored = storage_pb2.StoredObject(
            bucket=self.bucket,
            key=key,
            digest=blob.digest,
            size_bytes=len(data),
            etag=hashlib.md5(data).hexdigest(),
        )
        await self._storage.PutObject(storage_pb2.PutObjectRequest(object=stored))

    async def package(self, name: str) -> None:
        """Makes the package if it is not there."""
        try:
            await self._packages.CreatePackage(pb.CreatePackageRequest(package_name=name))
        except Conflict:
            return

    async def assets(self, package: dict[str, Any], data: bytes, descriptor: dict[str, Any] | None = None) -> None:
        """Stores `data` as every model of the package, in an archive as every container, with descriptors to match; what
        is an archive already (or a broken one, to be refused) as it is."""
        name = package["nodePackage"]["name"]
        for asset in package["nodePackage"].get("assets", []):
            for item in asset["implementations"]:
                if item["type"] == "system":
                    continue
                is_archive = item["type"] == "model" or data.startswith(b"\x1f\x8b")
                stored = data if is_archive else tar_gz({"panorama/app.py": data})
                await self.put(f"{ACCOUNT}/nodePackages/{name}/binaries/{item['assetUri']}", stored)
                usual = graphs.MODEL_DESCRIPTOR if item["type"] == "model" else graphs.RUNTIME_DESCRIPTOR
                text = json.dumps(descriptor or usual)
                await self.put(f"{ACCOUNT}/nodePackages/{name}/binaries/{item['descriptorUri']}", text.encode())

    async def manifest(self, package: dict[str, Any]) -> str:
        """Stores the package.json; returns its patch version."""
        text = json.dumps(package).encode()
        patch = hashlib.sha256(text).hexdigest()
        inner = package["nodePackage"]
        key = f"{ACCOUNT}/nodePackages/{inner['name']}/manifests/{inner['version']}/{patch}.json"
        await self.put(key, text)
        return patch

    async def register_only(self, name: str, patch: str, *, latest: bool = True, version: str = "1.0") -> None:
        """RegisterPackageVersion alone."""
        await self._packages.RegisterPackageVersion(
            pb.RegisterPackageVersionRequest(
                package_id=f"packageName/{name}", package_version=version, patch_version=patch, mark_latest=latest
            )
        )

    async def describe(self, name: str, patch: str) -> pb.DescribePackageVersionResponse:
        """DescribePackageVersion of a patch of version 1.0."""
        return await self._packages.DescribePackageVersion(
            pb.DescribePackageVersionRequest(
                package_id=f"packageName/{name}", package_version="1.0", patch_version=patch
            )
        )

    async def register(
        self,
        package: dict[str, Any],
        data: bytes = b"",
        *,
        latest: bool = True,
        descriptor: dict[str, Any] | None = None,
    ) -> str:
        """Everything; returns the patch version."""
        inner = package["nodePackage"]
        await self.package(inner["name"])
        await self.assets(package, data, descriptor)
        patch = await self.manifest(package)
        await self.register_only(inner["name"], patch, latest=latest, version=inner["version"])
        return patch

    async def camera(self, name: str, url: str, username: str = "", password: str = "") -> None:
        """Registers a camera whose node is named like its package."""
        parameters = {"StreamUrl": url, "Username": username, "Password": password}
        await self._packages.CreateNodeFromTemplateJob(
            pb.CreateNodeFromTemplateJobRequest(
                node_name=name,
                output_package_name=name,
                output_package_version="1.0",
                template_parameters={key: value for key, value in parameters.items() if value},
                template_type=pb.TEMPLATE_TYPE_RTSP_CAMERA_STREAM,
            )
        )
