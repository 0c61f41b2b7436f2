"""What happens to models where no framework is installed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from belvedere.blobs import BlobStore
from belvedere.v1 import packages_pb2 as pb
from services.packages.models.convert import ModelRefused
from services.packages.models.environments import Environments
from services.packages.models.importer import ModelImporter
from services.packages.store import REGISTERING, VersionRow
from tests.support import graphs
from tests.support.cloud import RunningCloud, running_cloud
from tests.support.models import tiny_onnx, tiny_tensorflow_bytes
from tests.support.registering import Uploader

KERAS = b"\x89HDF\r\n\x1a\n" + bytes(100)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, ["packages", "deployments"]) as running:
        with running.caller():
            yield running


async def test_what_appliances_read_is_kept_and_the_rest_names_the_command_that_helps(tmp_path: Path) -> None:
    blobs = BlobStore.at(tmp_path / "blobs")
    importer = ModelImporter(blobs, Environments(tmp_path / "none"), timeout_s=10, work=tmp_path)
    text = json.dumps(graphs.MODEL_DESCRIPTOR)
    for data in (tiny_tensorflow_bytes(), tiny_onnx(tmp_path / "net").read_bytes()):
        blob = await blobs.put_bytes(data)
        taken = await importer.take(blob.digest, blob.size_bytes, text)
        assert (taken.digest, taken.descriptor, taken.note) == (blob.digest, text, "")
    keras = await blobs.put_bytes(KERAS)
    with pytest.raises(ModelRefused, match=r"Keras models are converted here.*belvedere models install tensorflow"):
        await importer.take(keras.digest, keras.size_bytes, text)


async def test_a_model_that_can_not_be_taken_fails_its_version_with_the_asset_and_the_reason(
    cloud: RunningCloud,
) -> None:
    uploader = Uploader(cloud)
    patch = await uploader.register(graphs.model_package(), KERAS)
    version = await uploader.describe("person_detector", patch)
    assert version.status == pb.PACKAGE_VERSION_STATUS_FAILED
    assert "Keras models are converted here" in version.status_description


async def test_a_registration_that_was_cut_off_by_a_restart_is_finished(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, ["packages", "deployments"]) as cloud:
        with cloud.caller():
            uploader = Uploader(cloud)
            patch = await uploader.register(graphs.model_package(), tiny_tensorflow_bytes())
            database = cloud.runtime.database("packages")
            async with database.session() as session, session.begin():
                described = await uploader.describe("person_detector", patch)
                row = await session.get(VersionRow, (described.package_id, "1.0", patch))
                assert row is not None
                row.status, row.latest = REGISTERING, False
                session.add(row)
            version = await uploader.describe("person_detector", patch)
            assert version.status == pb.PACKAGE_VERSION_STATUS_REGISTER_PENDING
    async with running_cloud(tmp_path, ["packages", "deployments"]) as cloud:
        with cloud.caller():
            # Asking for it again waits for the one that is under way.
            await Uploader(cloud).register_only("person_detector", patch)
            version = await Uploader(cloud).describe("person_detector", patch)
            assert version.status == pb.PACKAGE_VERSION_STATUS_REGISTER_COMPLETED
            assert version.is_latest_patch
