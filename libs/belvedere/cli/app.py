"""`belvedere app …`: an application from an empty folder to running, in the layout and with the API of AWS's tools.

`init` and `build` work on files; `test` and `dev` run it on this machine; `package`, `deploy` and `logs` call the endpoint
of the standard AWS variables; `watch` asks the cloud side of a data folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.exceptions import ConnectionError as NotReached

from belvedere.appdir import (
    AUTO,
    BARE,
    ENGINES,
    AppFolder,
    AppFolderError,
    CameraNode,
    Package,
    add_model,
    build_code_asset,
    code_packages,
    literal_type,
    new_app,
    overrides_document,
    read_document,
    take_over,
    with_open_ports,
)
from belvedere.cli.account import APPLICATION_ROLE, DEPLOY_TIMEOUT_S, Account, said
from belvedere.cli.app_logs import LogTail
from belvedere.cli.errors import CliError

BASE_VARIABLE = "BELVEDERE_APP_BASE"
"""The setting behind `build --base`."""
FIRST_ACCOUNT = "123456789012"
"""The account that `belvedere up` makes unless told otherwise."""
SAME_NAME = "same-name"
NO_ROLE = "none"

Command = Callable[[argparse.Namespace], int]


class _Words(argparse.ArgumentParser):
    """A parser that `fill`s itself when it is used: what runs applications here takes longer to load than most commands
    take."""

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        fill, self.fill = self.fill, None
        if fill is not None:
            fill(self)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of `belvedere app` to the command line."""
    app = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Words)

    def command(name: str, run: Command, text: str, folder: bool = True) -> argparse.ArgumentParser:
        own: argparse.ArgumentParser = app.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if folder:
            own.add_argument("app_dir", metavar="APP_DIR", type=Path, help="the application's folder")
        own.set_defaults(run=_told(run))
        return own

    made = command("init", init, "make a new application folder, with an example that works")
    made.add_argument("--account", help=f"account in its documents (the endpoint's, or {FIRST_ACCOUNT})")

    taken = command("import", import_, "put your account in the place of the one that the folder came with")
    taken.add_argument("--account", help="the account (the endpoint's)")

    building = command("build", build, "build the container archive of the code packages")
    building.add_argument("--package", metavar="NAME", help="only this package (all that have a Dockerfile)")
    building.add_argument("--asset", metavar="NAME", help="the asset's name (the one in package.json)")
    building.add_argument(
        "--base",
        metavar="IMAGE|TAR|DIR",
        default=os.environ.get(BASE_VARIABLE) or None,
        help=f"what stands for AWS's base image: an image's name, a root filesystem as tar file or folder (${BASE_VARIABLE})",
    )
    building.add_argument(
        "--engine",
        choices=(AUTO, *ENGINES, BARE),
        default=AUTO,
        help="what builds (the first that answers, where one is needed; bare: none)",
    )

    adding = command("add-model", add_model_file, "put a model file into a model package")
    adding.add_argument("model_file", metavar="MODEL_FILE", type=Path, help="a model, or a .tar.gz with one")
    adding.add_argument("--package", metavar="NAME", help="the model's package (the only one without a Dockerfile)")
    adding.add_argument("--descriptor", metavar="FILE", type=Path, help="(descriptor.json in the package)")
    adding.add_argument("--asset", metavar="NAME", help="the asset's name (the one in package.json)")

    app.add_parser("test", help="run it on clips, headless, and check what it did").fill = _test_arguments
    app.add_parser("dev", help="run it, and put every change in the place of what runs").fill = _dev_arguments

    command("package", package, "upload what is missing, and register the packages")

    going = command("deploy", deploy, "package it, start it on a device, and wait until it runs")
    going.add_argument("--device", metavar="ID|NAME", help="where (the only device there is)")
    going.add_argument("--name", help="of the application instance (the graph's name)")
    going.add_argument(
        "--override",
        metavar="NODE=CAMERA|VALUE",
        action="append",
        default=[],
        help="cameras in the place of a camera node (NODE=door,yard), or a parameter's value; may be repeated",
    )
    going.add_argument("--overrides", metavar="FILE", type=Path, help="an overrides document to begin with")
    going.add_argument(
        "--open-ports", action="store_true", help="repeat the graph's networkRoutingRules in the overrides"
    )
    going.add_argument(
        "--replace", metavar=f"ID|{SAME_NAME}", help="the instance that runs until this one delivers, then goes"
    )
    going.add_argument(
        "--role", default=APPLICATION_ROLE, help=f"role of the application, by name or ARN; {NO_ROLE} (%(default)s)"
    )
    going.add_argument("--build", action="store_true", help="build first")
    going.add_argument("--no-wait", action="store_true", help="end once it is under way")
    going.add_argument("--timeout", metavar="SECONDS", type=float, default=DEPLOY_TIMEOUT_S, help="(%(default).0f)")
    going.set_defaults(package=None, asset=None, engine=AUTO, base=os.environ.get(BASE_VARIABLE) or None)

    logs = command("logs", show_logs, "show what an application writes", folder=False)
    logs.add_argument("instance", metavar="INSTANCE", help="application instance, by id or name")
    logs.add_argument("--follow", "-f", action="store_true", help="go on with what comes, until Ctrl-C")
    logs.add_argument("--lines", "-n", type=int, default=50, help="how many to begin with (%(default)s)")

    seen = "print where its video is seen, with the password that opens it"
    app.add_parser("watch", help=seen, description=seen[0].upper() + seen[1:] + ".").fill = _watch_arguments


def init(options: argparse.Namespace) -> int:
    folder: Path = options.app_dir
    app = new_app(folder, options.account or _account_if_any())
    print(f"{app.root}: made. Its code: {next(app.root.rglob('application.py'))}")
    print(f"next: belvedere app dev {folder} --camera FILE|URL")
    print(f"then: belvedere app build {folder} && belvedere app deploy {folder} --override camera=CAMERA")
    return 0


def import_(options: argparse.Namespace) -> int:
    app = AppFolder.load(options.app_dir)
    account = options.account or Account.from_environment().account_id
    gone = take_over(app, account)
    print(f"{', '.join(gone)} → {account}" if gone else f"{app.root} is account {account}'s already")
    return 0


def build(options: argparse.Namespace) -> int:
    app = AppFolder.load(options.app_dir)
    packages = code_packages(app) if options.package is None else (app.package(options.package),)
    if not packages:
        raise CliError(f"no package in {app.root / 'packages'} has a Dockerfile: there is nothing to build")
    for chosen in packages:
        built = build_code_asset(
            app, chosen, say=_aside, engine=options.engine, base=options.base, asset_name=options.asset
        )
        size = built.asset.archive.stat().st_size
        how = "bare: for the appliance's own Python" if built.how == BARE else f"with {built.how}"
        print(f"{chosen.name}: {built.asset.archive.name}, {_size(size)}, {how}")
        if built.node is not None:
            print(f"  {built.node} is new in the graph: connect it there with edges")
    return 0


def add_model_file(options: argparse.Namespace) -> int:
    app = AppFolder.load(options.app_dir)
    chosen = app.package(options.package) if options.package else _model_package(app)
    asset, node = add_model(app, chosen, options.model_file, options.descriptor, options.asset)
    print(f"{chosen.name}: {asset.archive.name}, {_size(asset.archive.stat().st_size)}")
    if node is not None:
        print(f"  {node} is new in the graph: code calls it by this name")
    return 0


def package(options: argparse.Namespace) -> int:
    _publish(AppFolder.load(options.app_dir), Account.from_environment())
    return 0


def deploy(options: argparse.Namespace) -> int:
    app = AppFolder.load(options.app_dir)
    account = Account.from_environment()
    name = options.name or app.name
    overrides = _overrides(app, account, options.override, options.overrides, options.open_ports)
    device_id = account.device_id(options.device)
    replaces = _replaced(account, options.replace, name, device_id)
    if options.build:
        build(options)
    _publish(app, account)
    role = None if options.role == NO_ROLE else options.role
    deployment = account.deploy(name, device_id, app, overrides, replaces, role)
    print(deployment.instance_id, flush=True)
    if not options.no_wait:
        account.wait_running(deployment.instance_id, lambda text: print(f"  {text}", flush=True), options.timeout)
    return 0


def _test_arguments(parser: argparse.ArgumentParser) -> None:
    from belvedere.cli import app_test

    app_test.add_test_arguments(parser)


def _watch_arguments(parser: argparse.ArgumentParser) -> None:
    from belvedere.cli import app_watch

    app_watch.add_watch_arguments(parser)


def _dev_arguments(parser: argparse.ArgumentParser) -> None:
    from belvedere.cli import app_dev

    app_dev.add_dev_arguments(parser)
    parser.add_argument(
        "--device", metavar="ID|NAME", help="deploy each change there instead (AWS variables; --override NODE=CAMERA)"
    )
    parser.set_defaults(run=_told(develop))


def develop(options: argparse.Namespace) -> int:
    """On this machine, or with `--device` by deployments that replace each other."""
    from belvedere.cli import app_dev

    if options.device is None:
        return app_dev.dev(options, None)
    again = argparse.Namespace(
        app_dir=options.app_dir, device=options.device, name=None, override=options.override, overrides=options.overrides,
        replace=SAME_NAME, role=APPLICATION_ROLE, build=True, open_ports=True, no_wait=False, timeout=DEPLOY_TIMEOUT_S,
        package=None, asset=None, engine=AUTO, base=os.environ.get(BASE_VARIABLE) or None,
    )  # fmt: skip
    run = _told(deploy)

    def redeploy() -> None:
        run(again)

    return app_dev.dev(options, redeploy)


def show_logs(options: argparse.Namespace) -> int:
    account = Account.from_environment()
    instance = account.instance(options.instance)
    if instance is None:
        raise CliError(
            f'no application instance is named "{options.instance}": `aws panorama list-application-instances`'
        )
    device_id, instance_id = instance["DefaultRuntimeContextDevice"], instance["ApplicationInstanceId"]
    tail = LogTail(account.logs, f"/aws/panorama/devices/{device_id}/applications/{instance_id}")
    for line in tail.last(options.lines):
        print(line, flush=True)
    if options.follow:
        for line in tail.follow():
            print(line, flush=True)
    return 0


def _model_package(app: AppFolder) -> Package:
    found = [package for package in app.packages() if package not in code_packages(app)]
    if len(found) != 1:
        names = ", ".join(package.name for package in found) or "none"
        raise CliError(f"say which package with --package; those without a Dockerfile: {names}")
    return found[0]


def _publish(app: AppFolder, account: Account) -> None:
    strangers = {found.account for found in app.packages()} - {account.account_id}
    if strangers:
        raise CliError(
            f"{app.root} names account {', '.join(sorted(strangers))}, and you are {account.account_id}: "
            f"`belvedere app import {app.root}` puts yours in its place"
        )
    for published in account.register_packages(app):
        name = f"{published.package.name} {published.package.version} {published.package.patch_version[:12]}"
        print(
            f"{name}: registered, {published.uploaded} file{'s' * (published.uploaded != 1)} uploaded"
            if published.registered
            else f"{name}: registered already"
        )


def _overrides(
    app: AppFolder, account: Account, choices: Sequence[str], start: Path | None, open_ports: bool
) -> dict[str, Any] | None:
    if not choices and start is None and not open_ports:
        return None
    cameras: dict[str, list[CameraNode]] = {}
    values: dict[str, tuple[str, str]] = {}
    graph = app.graph()
    for choice in choices:
        node, equals, chosen = choice.partition("=")
        if not equals:
            raise CliError(f"--override {choice}: say NODE=CAMERA, or PARAMETER=VALUE")
        if (kind := literal_type(graph, node)) is not None:
            values[node] = (kind, chosen)
        else:
            named = [account.camera(name.strip()) for name in chosen.split(",")]
            cameras[node] = cameras.get(node, []) + named
    taken = [item.get("name") for item in graph["nodeGraph"]["nodes"]]
    document = overrides_document(cameras, values, read_document(start) if start else None, taken)
    return with_open_ports(document, graph) if open_ports else document


def _replaced(account: Account, wanted: str | None, name: str, device_id: str) -> str | None:
    if wanted is None:
        return None
    if wanted != SAME_NAME:
        return wanted
    instance = account.instance(name, device_id, live=True)
    if instance is None:
        _aside(f"nothing named {name} runs there: nothing is replaced")
        return None
    return str(instance["ApplicationInstanceId"])


def _account_if_any() -> str:
    """The endpoint's account, where the environment names one: a folder can be made without."""
    try:
        return Account.from_environment().account_id
    except CliError:
        return FIRST_ACCOUNT


def _told(run: Command) -> Command:
    """The errors of folders and of the API as one line for the person at the keyboard."""

    @wraps(run)
    def told(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except AppFolderError as error:
            raise CliError(str(error)) from error
        except ClientError as error:
            raise CliError(said(error)) from error
        except NotReached as error:
            raise CliError(f"{error}: is the endpoint up? AWS_ENDPOINT_URL says where it is") from error
        except BotoCoreError as error:
            raise CliError(str(error)) from error

    return told


def _aside(text: str) -> None:
    """What an engine says: for who looks on, not part of the answer."""
    print(f"  {text}", file=sys.stderr, flush=True)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.1f} kB"
