"""Whatever a user can get wrong: a status and a message that say what and where, in the API and on the page; nothing
else stops working; putting it right recovers without a restart of anything.

One system serves all tests of this module. An innocent application runs from the first to the last; what a test that
failed has left behind on the appliance goes before the next.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from belvedere.appdir import AppFolder
from belvedere.cli.cloud import login_url
from belvedere.cli.errors import CliError
from tests.support.browser import expect, live_page
from tests.support.clips import make_clip
from tests.support.folders import FRAMES_THROUGH, application_folder, change_model, change_source
from tests.support.models import tiny_onnx
from tests.support.traces import places_of, secrets_of
from tests.support.whole import CAMERA_USER, WholeSystem, kept_port, run, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PASSWORD = "ri9ht/p@ss:w%rd+"
"""With everything that an address would have to escape."""
WRONG_PASSWORD = "wr0ng/p@ss:w%rd+"
NEW_FRAMES = 5
"""So many more of the innocent application show that it goes on."""
MEMORY_MB = 256
MARK = "the innocent application was here"
"""In a log, an event and a command line: shows that whoever looks for a secret there would find one."""
BROWSER_TIMEOUT_MS = 30_000.0

INNOCENT = f"""
import json, os, urllib.request
print("{MARK}")
token = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers={{"Authorization": token}})
with urllib.request.urlopen(request, timeout=30) as answer:
    role = json.load(answer)
with open("/opt/aws/panorama/storage/secrets.json", "w") as out:
    json.dump({{"token": token, "secret key": role["SecretAccessKey"], "session token": role["Token"]}}, out)
{FRAMES_THROUGH}
"""
"""Also tells its test what must be found nowhere else."""
ASKING_A_MODEL = """
import numpy, panoramasdk
node = panoramasdk.node()
while True:
    streams = node.inputs.video_in.get()
    answer = node.call({"x": numpy.ones((1, 3), "float32")}, "net")
    if answer is not None:
        node.outputs.video_out.put(streams)
"""
RAISING = "import a_package_that_nobody_brought\n"
HOARDING = """
import time
hoard = []
while True:
    hoard.append(bytearray(b"x") * (8 << 20))
    time.sleep(0.01)
"""
CHATTERING = f"""
import threading
def chatter():
    while True:
        print("chatter " * 100)
threading.Thread(target=chatter, daemon=True).start()
{FRAMES_THROUGH}
"""


class Site(WholeSystem):
    """The system, a camera, and an application that nobody has anything against."""

    def __enter__(self) -> Site:
        super().__enter__()
        try:
            self.clip = make_clip(self.folder / "clip.mp4", fps=10)
            self.camera_url = self.camera("front", self.clip, PASSWORD)
            self.account.register_camera("front", self.camera_url, CAMERA_USER, PASSWORD)
            self.innocent = ""
            self.ready()
        except BaseException:
            super().__exit__()
            raise
        return self

    def ready(self) -> None:
        """The innocent application runs; nothing that is not well is beside it."""
        self.bring_up()
        well = [one for one, status in self.instances().items() if status == "DEPLOYMENT_SUCCEEDED"]
        self.remove_all_but(self.innocent, *(one for one in well if self.describe(one)["HealthStatus"] == "RUNNING"))
        if self.innocent not in well:
            self.remove_all_but()
            self.innocent = self.deploy(self.app("innocent", INNOCENT))
        self.wait_running(self.innocent)
        wait_for("the innocent one's process", lambda: self.application(self.innocent).get("state") == "running")
        found = self.application(self.innocent)
        self.innocent_now = (found["state"], found["restarts"], found["pid"])

    def app(self, name: str, source: str, *, camera: str = "front", model: Path | None = None) -> AppFolder:
        """A new application folder."""
        return application_folder(
            Path(tempfile.mkdtemp(prefix=name, dir=self.folder)) / name, name, source, cameras=[camera], model=model
        )

    def innocent_goes_on(self) -> None:
        """More of its frames come, and nobody has touched it or its camera."""

        def row() -> dict[str, Any]:
            found = self.application(self.innocent)
            assert (found["state"], found["restarts"], found["pid"]) == self.innocent_now
            return found

        before = row()["frames_taken"]
        wait_for("more frames for the innocent", lambda: row()["frames_taken"] >= before + NEW_FRAMES)
        wait_for("it is well", lambda: self.describe(self.innocent)["HealthStatus"] == "RUNNING")

    def page_says_the_same(self, instance_id: str) -> None:
        """The page shows the status, the reason and the nodes that the API tells."""

        def told() -> list[Any]:
            one = self.describe(instance_id)
            line = (one["Status"], one["HealthStatus"], one.get("StatusDescription"))
            return [line, line, self.nodes(instance_id)]

        def shown() -> list[Any]:
            detail = self.console.get(f"applications/{instance_id}")
            listed = {line["id"]: line for line in self.console.get("overview")["applications"]}
            lines = (detail["application"], listed[instance_id])
            nodes = {node["id"]: node["status"] for node in detail["nodes"]}
            return [*((line["status"], line["health"], line["reason"]) for line in lines), nodes]

        # Several questions, between which something may change: asked until they meet the same moment.
        wait_for("the page tells what the API tells", lambda: told() == shown())

    def wait_reason(self, process: str, kind: str, key: str, value: str, code: str) -> None:
        """Until the one row of the overview says this typed reason; while it tries again it may say none."""

        def said() -> bool:
            rows = [row for row in self.rows(process, kind) if str(row[key]).startswith(value)]
            return [(row["reason"] or {}).get("code") for row in rows] == [code]

        wait_for(f"{process} says {code}", said)


@pytest.fixture(scope="module")
def any_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = {"BELVEDERE_INGEST_RETRY_MAX_S": "1", "BELVEDERE_SUPERVISOR_MEMORY_MB": str(MEMORY_MB)}
    with Site(tmp_path_factory.mktemp("site"), settings) as running:
        yield running


@pytest.fixture
def site(any_site: Site) -> Site:
    any_site.ready()
    return any_site


def test_a_wrong_camera_password_is_named_and_the_right_one_is_enough(site: Site) -> None:
    site.account.register_camera("locked", site.camera_url, CAMERA_USER, WRONG_PASSWORD)
    instance_id = site.deploy(site.app("locked_out", FRAMES_THROUGH, camera="locked"))
    said = "camera `locked`: 401 from the camera: wrong user name or password"
    site.wait_status(instance_id, "DEPLOYMENT_ERROR", "ERROR", said)
    site.wait_nodes(instance_id, locked="ERROR")
    site.wait_reason("ingest", "cameras", "camera_id", "locked-", "CAMERA_UNAUTHORIZED")
    site.page_says_the_same(instance_id)
    with live_page(login_url(site.cloud_data)) as page:
        page.locator("#applications").get_by_text("locked_out").click(timeout=BROWSER_TIMEOUT_MS)
        expect(page.locator("#reason")).to_have_text(said, timeout=BROWSER_TIMEOUT_MS)
        expect(page.locator("#status")).to_have_text("deployment error", timeout=BROWSER_TIMEOUT_MS)
    site.innocent_goes_on()

    site.account.register_camera("locked", site.camera_url, CAMERA_USER, PASSWORD)
    site.wait_running(instance_id)
    wait_for("all run", lambda: set(site.nodes(instance_id).values()) == {"RUNNING"})
    site.page_says_the_same(instance_id)


def test_a_camera_that_is_not_there_is_named_and_found_when_it_comes(site: Site) -> None:
    with kept_port() as port:
        site.account.register_camera("absent", f"rtsp://127.0.0.1:{port}/camera", CAMERA_USER, PASSWORD)
        instance_id = site.deploy(site.app("waiting", FRAMES_THROUGH, camera="absent"))
        said = f"camera `absent`: 127.0.0.1:{port} refuses connections"
        site.wait_status(instance_id, "DEPLOYMENT_ERROR", "ERROR", said)
        site.wait_nodes(instance_id, absent="ERROR")
        site.wait_reason("ingest", "cameras", "camera_id", "absent-", "CAMERA_UNREACHABLE")
        site.page_says_the_same(instance_id)
        site.innocent_goes_on()

        site.camera("absent", site.clip, PASSWORD, port)
        site.wait_running(instance_id)
        site.wait_nodes(instance_id, absent="RUNNING")


def test_a_file_that_is_no_model_is_not_registered_and_one_that_does_not_load_is_named_and_replaced(site: Site) -> None:
    file = site.folder / "net.onnx"
    file.write_bytes(b"this is no model" * 100)
    app = site.app("asking", ASKING_A_MODEL, model=file)
    with pytest.raises(CliError, match=r"was not registered: .*the model file is no model that can be recognised"):
        site.deploy(app)

    change_model(app, tiny_onnx(file, op="Frobnicate", domain="my.ops"))
    instance_id = site.deploy(app)
    site.wait_status(instance_id, "DEPLOYMENT_ERROR", "ERROR", "Frobnicate")
    site.wait_nodes(instance_id, net="ERROR")
    site.wait_reason("inference", "models", "model_id", "", "MODEL_UNSUPPORTED")
    site.page_says_the_same(instance_id)
    site.innocent_goes_on()

    change_model(app, tiny_onnx(file))
    right = site.deploy(app, replaces=instance_id)
    site.wait_running(right)
    site.wait_nodes(right, net="RUNNING")
    site.wait_status(instance_id, "REMOVAL_SUCCEEDED")


def test_a_manifest_that_names_a_missing_package_is_refused_with_its_place(site: Site) -> None:
    app = site.app("homeless", FRAMES_THROUGH)
    before, version = site.instances(), site.overview()["target_version"]

    def refused(manifest: str) -> dict[str, str]:
        with pytest.raises(site.panorama.exceptions.ValidationException) as caught:
            site.create(manifest, "homeless")
        assert caught.value.response["Reason"] == "FIELD_VALIDATION_FAILED"
        fields = caught.value.response["Fields"]
        assert str(caught.value.response["Message"]).startswith(f"{fields[0]['Name']}: {fields[0]['Message']}")
        return {field["Name"]: field["Message"] for field in fields}

    manifest = app.graph_path.read_text()
    assert "packageName:homeless_code, packageVersion:1.0" in refused(manifest)["packages[0]"]
    graph = json.loads(manifest)
    del graph["nodeGraph"]["packages"][0]
    assert 'no package "123456789012::homeless_code"' in refused(json.dumps(graph))["nodes[0].interface"]
    assert (site.instances(), site.overview()["target_version"]) == (before, version), "something was created"
    site.innocent_goes_on()

    site.wait_running(site.deploy(app))


def test_an_application_that_raises_at_import_is_quoted_and_replaced(site: Site) -> None:
    app = site.app("raising", RAISING)
    instance_id = site.deploy(app)
    line = "ModuleNotFoundError: No module named 'a_package_that_nobody_brought'"
    site.wait_status(instance_id, "DEPLOYMENT_ERROR", "ERROR", f"code `code_node`: exit code 1: {line}")
    site.wait_nodes(instance_id, code_node="ERROR")
    site.wait_reason("supervisor", "applications", "instance_id", instance_id, "APP_EXITED")
    site.page_says_the_same(instance_id)
    wait_for(
        "its traceback is in its log", lambda: 'File "/panorama/application.py", line 1' in _log(site, instance_id)
    )
    site.innocent_goes_on()

    _replaced_by_a_good_one(site, app, instance_id)


def test_an_application_that_eats_memory_is_stopped_and_told_how_much(site: Site) -> None:
    app = site.app("hoarding", HOARDING)
    instance_id = site.deploy(app)
    told = site.wait_status(instance_id, "DEPLOYMENT_ERROR", "ERROR", f"MB of its {MEMORY_MB} MB: raise memory_mb")
    assert told["StatusDescription"].startswith("code `code_node`: used ")
    site.wait_nodes(instance_id, code_node="ERROR")
    site.wait_reason("supervisor", "applications", "instance_id", instance_id, "APP_OUT_OF_MEMORY")
    site.page_says_the_same(instance_id)
    site.innocent_goes_on()

    _replaced_by_a_good_one(site, app, instance_id)


def test_an_application_that_prints_without_end_is_cut_and_the_log_says_so(site: Site) -> None:
    app = site.app("chattering", CHATTERING)
    instance_id = site.deploy(app)
    site.wait_running(instance_id)
    wait_for("lines are dropped", lambda: site.application(instance_id)["log_lines_dropped"] > 10_000)
    site.innocent_goes_on()
    wait_for("the log says so", lambda: "the application writes too many" in _log(site, instance_id))
    assert not site.application(site.innocent)["log_lines_dropped"]
    site.page_says_the_same(instance_id)

    _replaced_by_a_good_one(site, app, instance_id)


def test_a_device_that_does_not_exist_is_refused_and_nothing_is_created(site: Site) -> None:
    app, before = site.app("lost", FRAMES_THROUGH), site.instances()
    with pytest.raises(site.panorama.exceptions.ValidationException) as caught:
        site.deploy(app, device_id=f"device-{26 * 'a'}")
    (field,) = caught.value.response["Fields"]
    assert field["Name"] == "DefaultRuntimeContextDevice" and "there is no device" in field["Message"]
    assert site.instances() == before


def _used(site: Site, bundle: Path) -> None:
    bundle.write_bytes(site.bundle.read_bytes())


def _expired(site: Site, bundle: Path) -> None:
    _changed(site, bundle, expires_at="2020-01-01T00:00:00+00:00")


def _foreign(site: Site, bundle: Path) -> None:
    _changed(site, bundle, token="guessed-and-long-enough")


def _damaged(site: Site, bundle: Path) -> None:
    bundle.write_bytes(site.bundle.read_bytes()[:200])


def _absent(site: Site, bundle: Path) -> None:
    """Nothing there."""


def _changed(site: Site, bundle: Path, **values: str) -> None:
    with zipfile.ZipFile(site.bundle) as good, zipfile.ZipFile(bundle, "w") as bad:
        bad.writestr("ca.pem", good.read("ca.pem"))
        bad.writestr("config.json", json.dumps(json.loads(good.read("config.json")) | values))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_used, "the bundle was used already"),
        (_expired, "the bundle expired at 2020-01-01"),
        (_foreign, "enrolment refused: "),
        (_damaged, "is not a provisioning bundle"),
        (_absent, "no bundle at "),
    ],
)
def test_a_bundle_that_is_no_good_is_refused_in_one_line(
    site: Site, make: Callable[[Site, Path], None], says: str
) -> None:
    bundle = site.folder / f"bundle{make.__name__}.zip"
    make(site, bundle)
    assert says in _refusal("appliance", "run", "--data", site.folder / "refused", "--bundle", bundle)


def test_an_application_waits_for_a_device_that_is_not_enrolled(site: Site) -> None:
    bundle = site.folder / "second.zip"
    device_id = site.account.provision("second", bundle)
    instance_id = site.deploy(site.app("early", FRAMES_THROUGH), device_id=device_id)
    told = site.wait_status(instance_id, "DEPLOYMENT_PENDING", "NOT_AVAILABLE", "not enrolled yet")
    assert "bundle from ProvisionDevice" in told["StatusDescription"]
    site.page_says_the_same(instance_id)
    site.innocent_goes_on()

    # The folder in which every bad bundle was tried takes the good one.
    if (site.folder / "refused").exists():
        shutil.copytree(site.folder / "refused", site.folder / "second", symlinks=True)
    site.start("second", "appliance", "run", "--data", site.folder / "second", "--bundle", bundle)
    site.wait_running(instance_id)


def test_what_cannot_start_says_why_in_one_line(site: Site, tmp_path: Path) -> None:
    front_door = site.access.endpoint_url.rpartition(":")[2]
    assert "is in use by process" in _refusal("up", "--data", site.cloud_data)
    assert f"port {front_door} on 127.0.0.1" in _refusal("up", "--data", tmp_path / "new", "--port", front_door)
    assert "another appliance runs in" in _refusal("appliance", "run", "--data", site.appliance_data)
    assert "belongs to no device" in _refusal("appliance", "run", "--data", tmp_path / "box")
    assert not (tmp_path / "box" / "run").is_symlink(), "a folder for sockets is left in /tmp"
    assert "holds no cloud side yet" in _refusal("env", "--data", tmp_path)
    assert "no appliance answers in" in _refusal("appliance", "status", "--data", tmp_path / "absent")
    assert not (tmp_path / "absent").exists(), "a question made a folder"


def test_a_simulated_camera_that_cannot_be_says_why_in_one_line(site: Site, tmp_path: Path) -> None:
    port = site.camera_url.partition("127.0.0.1:")[2].partition("/")[0]
    serve = ("camera", "serve", site.clip, "--port", port, "--password-file")
    assert port in _refusal(*serve, site.folder / "front.password")
    assert "can't be read: it is not text" in _refusal(*serve, site.bundle)
    assert "no video at" in _refusal("camera", "serve", tmp_path / "no.mp4")


def test_no_secret_has_left_a_trace(site: Site) -> None:
    wait_for("the innocent one's log", lambda: MARK in _log(site, site.innocent))
    told = json.loads((site.appliance_data / "storage" / site.innocent / "secrets.json").read_text())
    own = {f"the innocent application's {name}": text for name, text in told.items()}
    secrets = secrets_of(site, camera_passwords=[PASSWORD, WRONG_PASSWORD]) | own
    places = list(places_of(site))
    canaries = {
        "log file": site.device_id,
        "log stream": MARK,
        "event": site.innocent,
        "command line": str(site.appliance_data),
        "environment": f"BELVEDERE_SUPERVISOR_MEMORY_MB={MEMORY_MB}",
    }
    for kind, canary in canaries.items():
        assert [place for place in places if place.kind == kind and canary in place.content], f"blind to every {kind}"
    found = [
        (name, place.kind, place.name)
        for place in places
        for name, text in secrets.items()
        if text in place.content and not (place.application == site.innocent and name in own)
    ]
    assert not found


def test_the_innocent_application_was_never_disturbed(site: Site) -> None:
    site.innocent_goes_on()
    (camera,) = [row for row in site.rows("ingest", "cameras") if row["camera_id"].startswith("front-")]
    assert camera["reconnects"] == 0
    assert {row["restarts"] for row in site.rows("supervisor", "applications")} == {0}


def _replaced_by_a_good_one(site: Site, app: AppFolder, instance_id: str) -> None:
    change_source(app, FRAMES_THROUGH)
    right = site.deploy(app, replaces=instance_id)
    site.wait_running(right)
    site.wait_status(instance_id, "REMOVAL_SUCCEEDED")
    site.page_says_the_same(right)


def _log(site: Site, instance_id: str) -> str:
    """The newest lines of an application's output, as the API has them."""
    group = f"/aws/panorama/devices/{site.device_id}/applications/{instance_id}"
    return "\n".join(site.account.log_lines(group, "console_output", limit=1000))


def _refusal(*arguments: object) -> str:
    """What a command says that ends at once: one line."""
    ended = run(*arguments)
    assert ended.returncode not in (0, 1), (arguments, ended)
    (line,) = ended.stderr.splitlines()
    return line
