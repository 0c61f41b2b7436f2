"""The console's HTTP server: its page, its files, the login; and `create`."""

from http import HTTPStatus
from pathlib import Path
from typing import cast

import grpc
from aiohttp import web

from belvedere.chassis.errors import BelvedereError, Denied, Invalid, NotFound
from belvedere.chassis.gate import Policies
from belvedere.chassis.logs import get_logger
from belvedere.chassis.runtime import Runtime
from belvedere.chassis.service import Service
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from services.console.api import Api
from services.console.asking import AskingChannel, as_visitor
from services.console.http import COOKIE, Sessions, middleware, security_policy
from services.console.settings import ENV, Settings

log = get_logger(__name__)

STATIC = Path(__file__).parent / "static"
FILES = {
    "app.js": "text/javascript",
    "chart.js": "text/javascript",
    "dom.js": "text/javascript",
    "logs.js": "text/javascript",
    "player.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
MAX_REQUEST_BYTES = 64 * 1024
STOP_TIMEOUT_S = 0.5
MAX_TOKEN_LENGTH = 512


def create(runtime: Runtime) -> Service:
    """The console in this process."""
    console = Console(runtime, runtime.settings(Settings, ENV))
    return Service(name="console", ready=[console.start], close=[console.stop])


class Console:
    """The HTTP server."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens on the console's port."""
        channel = self._runtime.channel()
        self._api = Api(self._asking(channel), self._settings)
        self._sessions = Sessions(IdentityServiceStub(channel), self._settings, self._runtime.cloud)
        app = web.Application(
            middlewares=[middleware(self._sessions, self._settings)], client_max_size=MAX_REQUEST_BYTES
        )
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/login", self._login),
                web.post("/logout", self._logout),
                web.get("/static/{name}", self._file),
                *self._api.routes(),
            ]
        )
        # No access log: the address of a login holds its token.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT_S)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, self._runtime.cloud.host, self._runtime.ports.console, reuse_address=True
        ).start()

    @staticmethod
    def _asking(channel: grpc.aio.Channel) -> grpc.aio.Channel:
        """The channel for what a visitor wants to see."""
        return cast("grpc.aio.Channel", AskingChannel(channel, Policies(channel, "console")))

    async def stop(self) -> None:
        """Closes the port; open requests get STOP_TIMEOUT_S."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        visitor = await self._sessions.visitor(request)
        if visitor is None:
            return _html("login.html", HTTPStatus.UNAUTHORIZED)
        try:
            with as_visitor(visitor):
                origins = await self._api.video_origins()
        except BelvedereError as error:
            # The page itself works; it says what is away or not allowed, and loads itself again for the video.
            log.warning("the addresses of videos are not known", why=error.message)
            origins = set()
        page = (STATIC / "index.html").read_text().replace("{{video-origins}}", " ".join(sorted(origins)))
        headers = {"Content-Security-Policy": security_policy(origins)}
        return web.Response(text=page, content_type="text/html", headers=headers)

    async def _login(self, request: web.Request) -> web.Response:
        token = request.query.get("token", "")
        if not token or len(token) > MAX_TOKEN_LENGTH:
            return _html("login.html", HTTPStatus.UNAUTHORIZED)
        try:
            session_id, lasts_s = await self._sessions.redeem(token, request.remote or "unknown")
        except (Denied, NotFound, Invalid) as error:
            log.info("login refused", why=error.message)
            return _html("login.html", HTTPStatus.UNAUTHORIZED)
        # A page of ours leads on, not a redirect: a Strict cookie is not sent along with a redirect that begins on
        # another site.
        response = _html("welcome.html", HTTPStatus.OK)
        response.set_cookie(
            COOKIE,
            session_id,
            max_age=int(lasts_s),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._settings.secure_cookie,
        )
        return response

    async def _logout(self, request: web.Request) -> web.Response:
        response = web.json_response({})
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict", secure=self._settings.secure_cookie)
        return response

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in FILES:
            raise web.HTTPNotFound(text="There is no such file.")
        headers = {"Cache-Control": "no-cache"}
        return web.Response(text=(STATIC / name).read_text(), content_type=FILES[name], headers=headers)


def _html(name: str, status: HTTPStatus) -> web.Response:
    return web.Response(text=(STATIC / name).read_text(), content_type="text/html", status=status)
