"""The server: what is asked for, found; nothing else is known here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from anyio import create_task_group, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from shoal import assets
from shoal.documents import ConfigError
from shoal.home import ExperimentError
from shoal.web.api import ACTS, READS
from shoal.web.endpoints import BadRequest, Endpoint, body_of, document
from shoal.web.events import LIST, Events
from shoal.web.followed import Home, Unknown
from shoal.web.safety import Door, Guarded, cookie_name

STATIC = Path(__file__).parent / "static"
ENDPOINTS = READS + ACTS
NOT_THAT = '<p class="bad" role="alert">That is not the token.</p>'
WEEK_S = 7 * 24 * 3600


class Site:
    """What is not about an experiment: the page, its files, who is let in, what happens."""

    def __init__(self, home: Path, door: Door) -> None:
        self.home, self.door = Home(home), door
        self.events = Events(self.home)
        self.document = document(ENDPOINTS, version("shoal"))

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """What runs for as long as the server does."""
        async with self.events.running(), create_task_group() as group:
            group.start_soon(to_thread.run_sync, self.home.prepare)
            yield

    async def page(self, _: Request) -> Response:
        """The one page that there is."""
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    async def plotly(self, _: Request) -> Response:
        """plotly.js, from the installed plotly."""
        headers = {"cache-control": f"max-age={WEEK_S}, immutable"}
        return FileResponse(assets.PLOTLY, media_type="text/javascript", headers=headers)

    async def guard(self, _: Request) -> Response:
        """What a page has to know that is to make something happen."""
        return JSONResponse({"guard": self.door.guard}, headers={"cache-control": "no-store"})

    async def described(self, _: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(self.document)

    async def explained(self, _: Request) -> Response:
        """The page that shows it."""
        return FileResponse(STATIC / "api.html", headers={"cache-control": "no-cache"})

    async def happens(self, request: Request) -> Response:
        """The events of an experiment, or of the list."""
        return await self.events.stream(request, request.path_params.get("id", LIST))

    async def login(self, request: Request) -> Response:
        """A page that asks for the token; and the cookie, for whoever has it."""
        given = request.query_params.get("token")
        if request.method == "POST":
            said = parse_qs((await body_of(request)).decode("utf-8", "replace"))
            given = said.get("token", [""])[0]
        if given is None or not self.door.admits(given):
            page = (STATIC / "login.html").read_text(encoding="utf-8")
            if given is not None:
                page = page.replace("<form", f"{NOT_THAT}\n<form", 1)
            code = 200 if given is None else 401
            return HTMLResponse(page, code, {"cache-control": "no-store"})
        answer = RedirectResponse(".", status_code=303)
        name = cookie_name(request.headers.get("host", ""))
        answer.set_cookie(name, given, max_age=WEEK_S, httponly=True, samesite="strict")
        return answer

    def routes(self) -> list[Route | Mount]:
        """Where all that is."""
        return [
            Route("/", self.page),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/static/plotly.js", self.plotly),
            Mount("/static", Both(STATIC, assets.FOLDER)),
            Route("/api", self.explained),
            Route("/api/openapi.json", self.described),
            Route("/api/guard", self.guard),
            Route("/api/events", self.happens),
            Route("/api/experiments/{id}/events", self.happens),
        ]


def app(home: Path, door: Door) -> Starlette:
    """The page and the API for the experiments in `home`."""
    site = Site(home, door)
    made = Starlette(
        routes=[
            *site.routes(),
            *(Route(e.path, handler(e, site.home), methods=[e.method]) for e in ENDPOINTS),
        ],
        middleware=[
            Middleware(Guarded, door=door),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=4),
        ],
        exception_handlers={
            BadRequest: failing(400), ConfigError: failing(400), Unknown: failing(404),
            ExperimentError: failing(409), HTTPException: unavailable, Exception: broken,
        },
        lifespan=site.lifespan,
    )  # fmt: skip
    made.state.events = site.events
    return made


class Both(StaticFiles):
    """Files of two folders, as if they were one."""

    def __init__(self, *folders: Path) -> None:
        super().__init__(directory=folders[0])
        self.all_directories = list(folders)


def handler(endpoint: Endpoint, home: Home) -> Callable[[Request], Awaitable[Response]]:
    """What answers requests for `endpoint`."""

    async def answer(request: Request) -> Response:
        given = request.path_params | endpoint.query(request)
        if endpoint.body is not None:
            given |= endpoint.inside(await body_of(request))
        id = given.pop("id", None)
        if id is None:
            return JSONResponse(await to_thread.run_sync(endpoint.answer, home))
        return await to_thread.run_sync(answered, endpoint, home, id, given, request)

    return answer


def answered(
    endpoint: Endpoint, home: Home, id: str, given: dict[str, Any], request: Request
) -> Response:
    """The answer about one experiment."""
    followed = home.get(id)
    if endpoint.body is not None:
        return response(endpoint.answer(followed.folder, **given))
    if not endpoint.cached:
        return response(endpoint.answer(followed.now(), **given))
    known = f'"{followed.refresh()}"'
    if known == request.headers.get("if-none-match"):
        return Response(status_code=304, headers={"etag": known})
    key = dumps([endpoint.path, given])
    tag, body = followed.answer(
        key, lambda now: bytes(response(endpoint.answer(now, **given)).body)
    )
    headers = {"etag": f'"{tag}"', "cache-control": "no-cache"}
    return Response(body, media_type="application/json", headers=headers)


def response(made: Any) -> Response:
    """`made` as an answer, if it is none yet."""
    return made if isinstance(made, Response) else JSONResponse(made)


def failing(code: int) -> Callable[[Request, Exception], Response]:
    """What answers where an exception of a kind was raised."""

    def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, code)

    return answer


def unavailable(_: Request, error: Exception) -> Response:
    """The answer for a path that is not there, or a method that is not for it."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def broken(_: Request, error: Exception) -> Response:
    """The answer where we have made a mistake."""
    return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)
