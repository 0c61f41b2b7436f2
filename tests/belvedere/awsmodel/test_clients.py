"""The installed model, as today's boto3 reads it. tests/peers judges it by AWS's own."""

from __future__ import annotations

from pathlib import Path

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import EndpointProviderError, ParamValidationError

from belvedere import awsmodel


def client(models: Path, endpoint: str | None = "http://127.0.0.1:1") -> object:
    session = botocore.session.Session()
    session.set_config_variable("data_path", str(models))
    session.set_credentials("AKIAEXAMPLE", "secret")
    return session.create_client("panorama", region_name="us-east-1", endpoint_url=endpoint)


class Recorder:
    """Takes the place of the wire: keeps what botocore would have sent."""

    def __init__(self, client: object) -> None:
        self.requests: list[AWSPreparedRequest] = []
        client.meta.events.register("before-send", self)  # type: ignore[attr-defined]

    def __call__(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        self.requests.append(request)
        return AWSResponse(request.url, 200, {}, type("Raw", (), {"stream": lambda self: iter([b"{}"])})())


def test_install_writes_the_model_where_todays_boto3_finds_it_and_signs_with_panoramas_name(tmp_path: Path) -> None:
    folder = awsmodel.install(tmp_path)
    assert folder == tmp_path / "panorama" / "2019-07-24"
    assert {file.name for file in folder.iterdir()} == {
        "service-2.json",
        "paginators-1.json",
        "endpoint-rule-set-1.json",
    }
    boto = client(tmp_path)
    sent = Recorder(boto)
    boto.describe_package(PackageId="packageName/code1")  # type: ignore[attr-defined]
    boto.untag_resource(ResourceArn="arn:aws:panorama:us-east-1:123456789012:device/d", TagKeys=["a", "b"])  # type: ignore[attr-defined]
    describe, untag = sent.requests
    assert describe.url == "http://127.0.0.1:1/packages/metadata/packageName%2Fcode1"
    assert "/us-east-1/panorama/aws4_request" in str(describe.headers["Authorization"])
    assert untag.url.endswith("/tags/arn%3Aaws%3Apanorama%3Aus-east-1%3A123456789012%3Adevice%2Fd?tagKeys=a&tagKeys=b")


def test_install_goes_below_the_home_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    awsmodel.install()
    assert (tmp_path / ".aws/models/panorama/2019-07-24/service-2.json").is_file()


def test_install_says_where_it_could_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(awsmodel.InstallFailed, match="--into"):
        awsmodel.install(tmp_path / "file")


def test_without_an_endpoint_the_client_is_told_what_to_set(tmp_path: Path) -> None:
    awsmodel.install(tmp_path)
    boto = client(tmp_path, endpoint=None)
    with pytest.raises(EndpointProviderError, match="AWS_ENDPOINT_URL"):
        boto.list_devices()  # type: ignore[attr-defined]


def test_the_client_checks_inputs_by_our_limits(tmp_path: Path) -> None:
    awsmodel.install(tmp_path)
    with pytest.raises(ParamValidationError):
        client(tmp_path).provision_device(Name="")  # type: ignore[attr-defined]
