"""The status page of the node: what needs a person first, what is in work, what waits for whom; for this machine only.

GET  /                           the page, in HTML that needs no script; ?state=STATE lists the studies of one state
GET  /studies/UID/report.png     the page of a study, where it may be shown; thumbnail.png: small
POST /retry                      begin a study again: from the page's own form, and from nowhere else
GET  /metrics                    for Prometheus
GET  /healthz                    200 while the node goes on and its database can be written; else 503, and a line why

One thread serves it, beside the node's: it reads by a connection of its own, which locks nobody out, and ends with the
node. What may have to wait for others, as writing does, is done in yet another thread, and given up soon. Who a patient
is shows only where the operator asked for it. Else no name, no picture with one, no text that may quote a file's name.
"""

from __future__ import annotations

import calendar
import hashlib
import io
import math
import secrets
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, quote

import anyio  # Starlette and uvicorn stand on it
import uvicorn
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, Summary, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.output_files import PAGE, PAGE_PICTURE, RESULT
from common.product import NOT_FOR_DIAGNOSIS, PRODUCT, RESEARCH
from common.refusal import CODES, Failure
from common.verdicts import PASS
from node.ai_node import AiNode, Settings
from node.incoming import UNIDENTIFIED
from node.study_queue import (
    ASIDE,
    DONE,
    FAILED,
    FINAL,
    PENDING,
    SENDING,
    STATES,
    WARNING,
    NothingToRetryError,
    QueueError,
    StudyQueue,
)
from reading.dicom_file import Instance, read_instance
from study.study_result import StudyResult, read_result

HOST = "127.0.0.1"
HOSTS = [HOST, "localhost"]  # by any port, as a tunnel has its own; who was rebound to us says another name
TEMPLATES = Path(__file__).parent / "templates"
REFRESH = 15  # seconds
STALLED = 60  # seconds without a step of the node
FRESH = 2  # seconds that what was read for a page does for its pictures
WAIT = 5  # seconds for the database
LEAST_ROOM = 16 << 20  # bytes free where the database lies
MOST_ROWS, MOST_OF_STATE = 30, 500
MOST_FORM = 4096  # bytes
GOOD, BAD = "#7fc8a0", "#ff8a7a"  # as in style.css
THUMBNAIL = (280, 200)
MOST_KEPT, MOST_THUMBNAILS = 2000, 200
WITH_RESULT = (SENDING, DONE, WARNING)  # in any other state what lies there may be of an earlier round
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers call the origin of our own form "null"
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class PageOptions:
    """port: of this machine. viewer_url: where a viewer shows a study, {study} standing for its UID."""

    port: int
    viewer_url: str | None = None
    show_identity: bool = False


# --- what is shown of a study -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """What the page says of the result of a study."""

    volumes: tuple[tuple[str, str], ...] = ()  # name, and cubic millimetres
    verdict: str | None = None
    doubts: tuple[str, ...] = ()
    pseudonym: str | None = None
    patient: str | None = None
    picture_sha256: str | None = None  # None: there is none, or it may not be shown
    seconds: tuple[tuple[str, float], ...] = ()


class Results:
    """What the results of the studies say; each is read once, until it is replaced."""

    def __init__(self, settings: Settings, show_identity: bool):
        self._settings, self._show_identity = settings, show_identity
        self._kept: dict[str, tuple[tuple[int, int], Shown]] = {}
        self._thumbnails: dict[str, bytes] = {}

    def of(self, study: dict) -> Shown:
        """Nothing where the study has no result now, or none that can be read."""
        folder = self._settings.results_of(study["study_uid"])
        if study["state"] not in WITH_RESULT:
            return Shown()
        try:
            stat = (folder / RESULT).stat()
            version, kept = (stat.st_mtime_ns, stat.st_ino), self._kept.get(study["study_uid"])
            if kept and kept[0] == version:
                return kept[1]
            shown = self._shown(read_result(folder), folder)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return Shown()
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[study["study_uid"]] = version, shown
        return shown

    def _shown(self, result: StudyResult, folder: Path) -> Shown:
        pictures = [row["sha256"] for row in result.outputs if row["file"] == PAGE_PICTURE]
        may_show = self._show_identity or result.pseudonym is not None
        return Shown(
            volumes=tuple(_volumes(result)),
            verdict=result.quality_verdict,
            doubts=tuple(check["name"] for check in result.quality if check["verdict"] != PASS),
            pseudonym=result.pseudonym,
            patient=_patient(folder) if self._show_identity else None,
            picture_sha256=pictures[0] if pictures and may_show else None,
            seconds=tuple(result.seconds.items()),
        )

    def picture(self, study: dict) -> bytes | None:
        """The page as result.json lists it, and no other: one that takes its place just now may name the patient."""
        listed = self.of(study).picture_sha256
        if listed is None:
            return None
        try:
            content = (self._settings.results_of(study["study_uid"]) / PAGE_PICTURE).read_bytes()
        except OSError:
            return None
        return content if hashlib.sha256(content).hexdigest() == listed else None

    def thumbnail(self, study: dict) -> bytes | None:
        """The same in small; kept, as each page that is opened asks for many."""
        listed = self.of(study).picture_sha256
        if listed in self._thumbnails:
            return self._thumbnails[listed]
        content = self.picture(study)
        if content is None:
            return None
        if len(self._thumbnails) >= MOST_THUMBNAILS:
            self._thumbnails.clear()
        self._thumbnails[listed] = small = _smaller(content)
        return small


def _volumes(result: StudyResult) -> Iterator[tuple[str, str]]:
    """Name and cubic millimetres; of a head, those of each side."""
    for name, value in (result.volumes_mm3 or {}).items():
        parts = {f"{name} {part}": one for part, one in value.items()} if isinstance(value, dict) else {name: value}
        yield from ((part, f"{one:,.0f}") for part, one in parts.items())


def _patient(folder: Path) -> str | None:
    """Name and PatientID as the page's own file has them."""
    try:
        page = read_instance(folder / PAGE, digest=False)
    except (OSError, Failure):
        return None
    if not isinstance(page, Instance):
        return None
    return ", ".join(filter(None, (page.text("PatientName").replace("^", " ").strip(), page.text("PatientID")))) or None


def _smaller(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as picture:
        picture.thumbnail(THUMBNAIL)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@dataclass(frozen=True)
class Row:
    """A line of the page. study: as the queue tells it. reason: only where it may quote a patient."""

    study: dict
    shown: Shown
    age: str
    again: str | None  # in how long the work is tried again
    meaning: str | None
    advice: str | None
    reason: str | None
    viewer: str | None
    can_retry: bool


def row_of(study: dict, results: Results, options: PageOptions) -> Row:
    uid, code = study["study_uid"], CODES.get(study["code"])
    viewer = options.viewer_url if uid != UNIDENTIFIED else None
    unsent = any(one["state"] == ASIDE for one in study["deliveries"])
    mended = unsent or (code is not None and code.again)  # the rest of the warnings would be the same again
    return Row(
        study=study,
        shown=results.of(study),
        age=duration(seconds_since(study["changed"])),
        again=duration(study["next_try_in"]) if study["code"] and study["next_try_in"] else None,
        meaning=code.meaning if code else None,
        advice=code.advice if code else None,
        reason=study["reason"] if options.show_identity else None,
        viewer=viewer.replace("{study}", quote(uid, safe="")) if viewer else None,
        can_retry=study["state"] == FAILED or (study["state"] == WARNING and mended),
    )


def sections(studies: Iterable[dict]) -> dict[str, list[dict]]:
    """The studies by what they ask of a person, the most first."""
    found: dict[str, list[dict]] = {"set aside": [], "look twice": [], "in work": [], "done": []}
    for one in studies:
        unsent = any(to["state"] == ASIDE for to in one["deliveries"])
        if one["state"] == FAILED or unsent:
            found["set aside"].append(one)
        elif one["state"] == WARNING:
            found["look twice"].append(one)
        else:
            found["done" if one["state"] == DONE else "in work"].append(one)
    return found


def waiting_for(studies: Iterable[dict], names: Iterable[str]) -> dict[str, dict]:
    """What waits for which destination, what was set aside there, and what it said last."""
    nothing = {"waiting": 0, "aside": 0, "attempts": 0, "next": None, "detail": None}
    found = {name: dict(nothing) for name in names}
    for one in studies:
        for to in one["deliveries"]:
            if to["state"] not in (PENDING, ASIDE):
                continue
            row = found.setdefault(to["destination"], dict(nothing))
            row["waiting" if to["state"] == PENDING else "aside"] += 1
            row["attempts"] = max(row["attempts"], to["attempts"])
            row["detail"] = row["detail"] or to["detail"]
            if to["next_try_in"] is not None:
                row["next"] = min(to["next_try_in"], math.inf if row["next"] is None else row["next"])
    return found


def seconds_since(changed: str) -> float:
    """By the clock on the wall, as the queue notes it for people; it may have been set meanwhile."""
    try:
        return max(0.0, time.time() - calendar.timegm(time.strptime(changed, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0


def duration(seconds: float) -> str:
    """As a person says it, in one unit or two."""
    for size, name, below in ((86400, "d", 3600), (3600, "h", 60), (60, "min", 0)):
        if seconds >= size:
            more = int(seconds % size // below) if below else 0
            return f"{int(seconds // size)} {name}" + (f" {more} {'h' if name == 'd' else 'min'}" if more else "")
    return f"{int(seconds)} s"


# --- metrics ----------------------------------------------------------------------------------------------------------


class Metrics:
    """What Prometheus reads. Steps count from the start of this node on."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"hippo_node_{name}", meaning, labels, registry=self._registry)

        self._states = gauge("studies", "studies by state", "state")
        self._codes = gauge("studies_by_code", "studies that have a code, by it", "code")
        self._deliveries = gauge("deliveries", "results that wait for a destination or were set aside", "to", "state")
        self._oldest = gauge(
            "oldest_seconds", "how long the oldest study of a state that is not final is in it", "state"
        )
        self._idle = gauge("idle_seconds", "since the last step of the node's loop")
        self._steps = Summary(
            "hippo_node_step_seconds", "seconds of each step of the work on a study", ["step"], registry=self._registry
        )
        self._known: set[tuple[str, int]] | None = None

    def text(self, studies: list[dict], results: Results, destinations: Iterable[str], idle: float) -> bytes:
        self._count(studies)
        self._deliveries.clear()
        for name, row in waiting_for(studies, destinations).items():
            self._deliveries.labels(name, "waiting").set(row["waiting"])
            self._deliveries.labels(name, "set aside").set(row["aside"])
        self._idle.set(idle)
        self.observe(studies, results)
        return generate_latest(self._registry)

    def _count(self, studies: list[dict]) -> None:
        states = Counter(one["state"] for one in studies)
        oldest: dict[str, float] = {}
        for one in studies:
            oldest[one["state"]] = max(oldest.get(one["state"], 0.0), seconds_since(one["changed"]))
        for state in STATES:
            self._states.labels(state).set(states[state])
            if state not in FINAL:
                self._oldest.labels(state).set(oldest.get(state, 0))
        self._codes.clear()
        for code, count in Counter(one["code"] for one in studies if one["code"]).items():
            self._codes.labels(code).set(count)

    def observe(self, studies: list[dict], results: Results) -> None:
        """Take the steps of what was worked on since the last time, the first time of none."""
        worked_on = {(one["study_uid"], one["round"]): one for one in studies if one["state"] in WITH_RESULT}
        for key in worked_on.keys() - (worked_on.keys() if self._known is None else self._known):
            for step, seconds in results.of(worked_on[key]).seconds:
                self._steps.labels(step).observe(seconds)
        self._known = set(worked_on)


# --- the service ------------------------------------------------------------------------------------------------------


class StatusPage:
    """The page of a node, within a `with` block. Raises OSError where its port is taken."""

    def __init__(self, node: AiNode, options: PageOptions):
        self.node, self.options = node, options
        self.results, self.metrics = Results(node.settings, options.show_identity), Metrics()
        self._told: set[str] = set()
        self.token = secrets.token_urlsafe(32)  # of the forms of this process
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["duration"] = duration
        self._few = anyio.CapacityLimiter(2)
        self._studies: dict[str, dict] = {}  # by UID, for the pictures of the page that asked last
        self._read_at = -math.inf
        self._queue: StudyQueue | None = None  # of the page's own thread
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, options.port))
        self._socket.listen()  # who asks before the thread serves waits a moment
        self.port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(_server_config(self._app()))
        self._thread = threading.Thread(target=self._run, name="status page", daemon=True)

    def __enter__(self) -> StatusPage:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(2 * WAIT)
        self._socket.close()

    def _run(self) -> None:
        try:
            while not self._server.should_exit:
                with suppress(QueueError), self.node.settings.queue() as self._queue:  # the node meets it, and tells it
                    self.metrics.observe(self._queue.studies(), self.results)
                    self._server.run(sockets=[self._socket])
                    return
                time.sleep(1)
        finally:
            self._socket.close()  # else whoever asks waits for an answer that nobody gives

    def _app(self) -> ASGIApp:
        routes = [
            Route("/", self._page),
            Route("/style.css", self._style),
            Route("/icon.svg", self._icon),
            Route("/studies/{uid}/report.png", partial(self._picture, self.results.picture)),
            Route("/studies/{uid}/thumbnail.png", partial(self._picture, self.results.thumbnail)),
            Route("/retry", self._retry, methods=["POST"]),
            Route("/metrics", self._metrics),
            Route("/healthz", self._healthz),
        ]
        handlers = {QueueError: self._trouble, Exception: self._trouble}
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
        return _WithHeaders(Starlette(routes=routes, middleware=[hosts], exception_handlers=handlers))

    async def _trouble(self, request: Request, error: Exception) -> Response:
        name = type(error).__name__
        if name not in self._told:
            self._told.add(name)
            self.node.settings.tell(f"trouble with the status page: {name}")
        return _line(f"this cannot be answered now: {name}", 503 if isinstance(error, QueueError) else 500)

    def _complaint(self) -> str | None:
        """Why the node makes no progress, in one line."""
        if (idle := self.node.idle_seconds()) > STALLED:
            return f"the node has made no step for {duration(idle)}"
        return self.node.trouble()

    # --- reading ---

    async def _page(self, request: Request) -> Response:
        state, studies = request.query_params.get("state"), self._read()
        state = state if state in STATES else None
        parts = sections(studies)
        needed = len(parts["set aside"])
        if state:
            parts = {state: [one for one in studies if one["state"] == state]}
        most = MOST_OF_STATE if state else MOST_ROWS
        rows = {
            name: [row_of(one, self.results, self.options) for one in found[:most]] for name, found in parts.items()
        }
        html = self._templates.get_template("status.html").render(
            product=PRODUCT,
            research=RESEARCH,
            disclaimer=NOT_FOR_DIAGNOSIS,
            now=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            refresh=None if "hold" in request.query_params else REFRESH,
            complaint=self._complaint(),
            counts={one: sum(study["state"] == one for study in studies) for one in STATES},
            state=state,
            needed=needed,
            rows=rows,
            pictures=any(row.shown.picture_sha256 for found in rows.values() for row in found),
            sizes={name: len(found) for name, found in parts.items()},
            destinations=waiting_for(studies, self.node.settings.destinations),
            token=self.token,
        )
        return Response(html, media_type="text/html")

    def _read(self) -> list[dict]:
        studies = self._queue.studies()
        self._studies, self._read_at = {one["study_uid"]: one for one in studies}, time.monotonic()
        return studies

    async def _style(self, request: Request) -> Response:
        return Response((TEMPLATES / "style.css").read_bytes(), media_type="text/css")

    async def _icon(self, request: Request) -> Response:
        """For the tab of the browser: whether somebody is needed."""
        colour = BAD if request.query_params.get("needed") else GOOD
        circle = f'<circle cx="4" cy="4" r="3" fill="{colour}"/>'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">{circle}</svg>'
        return Response(svg, media_type="image/svg+xml")

    async def _picture(self, find: Callable[[dict], bytes | None], request: Request) -> Response:
        """Of a study that the queue knows: what else stands in an address leads to no file."""
        uid = request.path_params["uid"]
        if time.monotonic() - self._read_at > FRESH:
            self._read()
        content = find(self._studies[uid]) if uid in self._studies else None
        return Response(content, media_type="image/png") if content else _line("there is no such picture", 404)

    async def _metrics(self, request: Request) -> Response:
        names, idle = self.node.settings.destinations, self.node.idle_seconds()
        text = self.metrics.text(self._queue.studies(), self.results, names, idle)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    # --- writing ---

    async def _healthz(self, request: Request) -> Response:
        reason = self._complaint() or await self._why_not_writable()
        return _line(reason or "ok", 503 if reason else 200)

    async def _why_not_writable(self) -> str | None:
        database = self.node.settings.database
        try:
            if shutil.disk_usage(database.parent).free < LEAST_ROOM:
                return "the disk of the database is full"
            await self._write(lambda queue: queue.renew(["nobody's"], 0))
        except TimeoutError:
            return f"the database was not free for {WAIT} s"
        except (OSError, QueueError) as error:
            return f"the database cannot be written: {error}"
        return None

    async def _retry(self, request: Request) -> Response:
        if not _is_same_origin(request.headers):
            return _line("only the status page itself may ask for this", 403)
        form = await _form(request)
        if not secrets.compare_digest(form.get("token", "").encode(), self.token.encode()):
            return _line("the form is of another run of the node: open the page again", 403)
        uid = form.get("study", "")
        try:
            await self._write(lambda queue: queue.retry(uid))
        except NothingToRetryError as error:
            return _line(str(error), 409)
        except TimeoutError:
            return _line("the database is not free: look again in a minute", 503)
        return RedirectResponse("/", 303)

    async def _write(self, action: Callable[[StudyQueue], object]) -> None:
        """In another thread, and not waited for longer than WAIT. Raises TimeoutError, QueueError."""

        def act() -> None:
            if not self.node.settings.database.is_file():  # lest a new and empty one take its place
                raise QueueError("it is gone")
            with self.node.settings.queue() as queue:
                action(queue)

        with anyio.fail_after(WAIT):
            await anyio.to_thread.run_sync(act, abandon_on_cancel=True, limiter=self._few)


def _server_config(app: ASGIApp) -> uvicorn.Config:
    """Silent, as its log would name addresses; and with none of what a page of this machine does not need."""
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=2,
    )


def _line(text: str, status: int) -> Response:
    return PlainTextResponse(f"{text}\n", status)


def _is_same_origin(headers: Headers) -> bool:
    """Whether a page of ours asks. Every browser says where a form comes from; who says nothing is none."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        return False
    return site in (None, "same-origin") and origin in (None, f"http://{headers['host']}")


async def _form(request: Request) -> dict[str, str]:
    """The first value of each field; nothing of a form that is longer than ours."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


class _WithHeaders:
    """What browsers must know, on every answer, also on one of what went wrong."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)
