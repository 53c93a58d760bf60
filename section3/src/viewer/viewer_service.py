"""The service as 3D Slicer's module MONAILabel and OHIF's extension of that name speak to it, beside our own addresses.

What is refused is answered with 4xx and one line, {"detail": "[code] reason"}, which the viewer shows. Whatever takes
the processor runs in other threads than the one that answers, so that /info/ answers while images are segmented.
"""

from __future__ import annotations

import html
import json
import random
import re
import sys
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from fastapi import Body, FastAPI, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException as HttpError
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from archive.dicomweb import DicomWebArchive
from common.product import NOT_FOR_DIAGNOSIS, PRODUCT
from common.refusal import Refusal, Stop, printable
from teaching.archive_images import image_of_series
from teaching.corrections import corrected_labels
from teaching.image_store import FINAL, ORIGINAL, ImageStore, NoSuchThing, StoredImage
from teaching.images import NAMES, as_nifti, as_nrrd, ending_of, kind_of, labels_of, read_image
from teaching.learning import EPOCHS, AlreadyRunning, Learning
from viewer.access import Gate
from viewer.drift import draw_drift, drift, told_of, usual_ranges
from viewer.segmenting import MODEL_OF, MODELS, Answer, Segmenter
from viewer.studies import Studies

MOST_NAME, MOST_PARAMS = 1024, 1 << 16  # characters
MOST_SESSION = 86400  # seconds
SESSION = 3600
TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")
STRATEGY = "random"
TRAINER = "hippocampus"
TRAINING = "Goes on from the model in use, with what was corrected; ends in a candidate that a person may promote."


@dataclass(frozen=True)
class ServiceOptions:
    """key: without which nobody is answered, None on this machine alone. origins: of web viewers that may ask.
    archive: whose series and studies may be named. to_archive: corrections of these are sent there.
    """

    key: str | None = None
    origins: tuple[str, ...] = ()
    most_bytes: int = 512 << 20
    archive: DicomWebArchive | None = None
    to_archive: bool = False


def create_service(
    store: ImageStore, segmenter: Segmenter, learning: Learning, options: ServiceOptions = ServiceOptions()
) -> ASGIApp:
    """The service as an ASGI application."""
    app = FastAPI(
        title=f"{PRODUCT} for viewers",
        description=NOT_FOR_DIAGNOSIS,
        version=segmenter.setup.agent.identity["version"],
        docs_url=None,  # a page that loads its script from elsewhere
        redoc_url=None,
    )
    app.add_api_route("/", lambda: HTMLResponse(_contents(app)), include_in_schema=False)
    handlers = (
        (NoSuchThing, _not_found),
        (Stop, _stopped),
        (RequestValidationError, _not_understood),
        (HttpError, _said),
        (Exception, _our_fault),
    )
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)
    _Addresses(store, segmenter, learning, options).add_to(app)
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["content-type", "authorization"],
        )
    return Gate(app, options.key, options.origins, options.most_bytes)


class _Addresses:
    """What is answered at which address. All of them are plain functions, which FastAPI calls in threads."""

    def __init__(self, store: ImageStore, segmenter: Segmenter, learning: Learning, options: ServiceOptions):
        self._store, self._segmenter, self._learning = store, segmenter, learning
        self._archive, self._to_archive = options.archive, options.to_archive
        self._studies = Studies(store.folder / "studies", options.archive, segmenter)

    def add_to(self, app: FastAPI) -> None:
        for method, path, function in (
            ("GET", "/auth/", self.is_login_needed),
            ("GET", "/auth/token/valid", self.is_token_valid),
            ("GET", "/info/", self.info),
            ("GET", "/datastore/", self.datastore),
            ("PUT", "/datastore/", self.add_image),
            ("PUT", "/datastore/image", self.add_image),
            ("GET", "/datastore/image", self.image),
            ("PUT", "/datastore/label", self.add_label),
            ("GET", "/datastore/label", self.label),
            ("PUT", "/session/", self.begin_session),
            ("GET", "/session/{session_id}", self.session),
            ("DELETE", "/session/{session_id}", self.end_session),
            ("POST", "/infer/{model}", self.infer),
            ("POST", "/activelearning/{strategy}", self.next_sample),
            ("POST", "/train/", self.train),
            ("POST", "/train/{trainer}", self.train),
            ("GET", "/train/", self.training),
            ("DELETE", "/train/", self.stop_training),
            ("GET", "/logs/", self.log),
            ("POST", "/studies", self.measure_study),
            ("GET", "/studies/{study_uid}", self.study),
            ("GET", "/studies/{study_uid}/report.png", self.page),
            ("GET", "/explain/{image:path}", self.explain),
            ("GET", "/drift", self.drift),
            ("GET", "/drift.png", self.drift_picture),
        ):
            app.add_api_route(path, function, methods=[method], response_model=None)

    # --- who, and what there is ---

    def is_login_needed(self) -> dict:
        """No: a key is a part of the server's address."""
        return {"enabled": False}

    def is_token_valid(self) -> dict:
        """Whoever comes so far may ask."""
        return {"valid": True}

    def info(self) -> dict:
        """What this service can do: names of models, of segments, and how many images there are."""
        identity = self._segmenter.setup.agent.identity
        return {
            "name": PRODUCT,
            "description": NOT_FOR_DIAGNOSIS,
            "version": identity["version"],
            "labels": [name for kind, _ in MODELS.values() for name in NAMES[kind]],
            "models": {
                name: {
                    "type": "segmentation",
                    "labels": NAMES[kind],
                    "dimension": 3,
                    "description": f"{text} {NOT_FOR_DIAGNOSIS}",
                    "config": {},
                }
                for name, (kind, text) in MODELS.items()
            },
            "trainers": {TRAINER: {"description": TRAINING, "config": {"epochs": EPOCHS}}},
            "strategies": {STRATEGY: {"description": "any image that nobody has corrected yet"}},
            "scoring": {},
            "train_stats": {TRAINER: self._learning.progress()},
            "datastore": self._statistics(),
            "config": {},
        }

    def _statistics(self) -> dict:
        total, tags = self._store.count()
        return {"total": total, "completed": tags.get(FINAL, 0), "label_tags": {FINAL: 0, **tags}}

    # --- images and labels ---

    def datastore(self, output: str = "stats") -> Response:
        """stats: how many images and labels. all: each of them. train: the pairs to learn from."""
        images, labels = self._store.names(), self._store.newest_labels()
        if output == "all":
            objects = {name: _object(image, labels.get(image.sha256, {})) for name, image in images.items()}
            return JSONResponse({"name": PRODUCT, "description": NOT_FOR_DIAGNOSIS, "objects": objects})
        if output == "train":
            done = [name for name, image in images.items() if FINAL in labels.get(image.sha256, {})]
            return JSONResponse([{"image": name, "label": name} for name in done])
        return JSONResponse(self._statistics())

    def add_image(self, file: UploadFile, image: Annotated[str | None, Query(max_length=MOST_NAME)] = None) -> dict:
        """Keep an image under the id that the viewer gives it; any text will do."""
        name = image if image is not None else printable(file.filename or "")[:MOST_NAME]
        self._keep(file, name)
        return {"image": name}

    def _keep(self, file: UploadFile, name: str | None) -> StoredImage:
        ending = ending_of(file.filename or "")
        self._store.require_room(file.size or 0)
        content = file.file.read()
        kind = kind_of(read_image(content, ending).volume.grid)
        return self._store.add_image(content, ending, kind, name)

    def image(self, image: str) -> Response:
        """The file as it came."""
        stored = self._store.named(image)
        return _attachment(self._store.content_of(stored), f"{stored.sha256[:16]}{stored.ending}")

    def add_label(
        self,
        image: str,
        label: Annotated[UploadFile | None, File()] = None,
        file: Annotated[UploadFile | None, File()] = None,
        params: Annotated[str, Form(max_length=MOST_PARAMS)] = "{}",
        tag: str = FINAL,
    ) -> dict:
        """Keep a mask that a person drew, as the newest version; by the names of its segments."""
        upload = label or file
        if upload is None:
            raise HTTPException(422, "[bad-request] the form has no file called label")
        if not TAG.fullmatch(tag or FINAL):
            raise HTTPException(422, "[bad-request] a tag is at most 64 letters, digits, dots, dashes or underscores")
        stored, said = self._store.named(image), _object_in(params)
        source = read_image(self._store.content_of(stored), stored.ending)
        mask = read_image(upload.file.read(), ending_of(upload.filename or ""))
        labels = corrected_labels(mask, source, stored.kind, _segment_names(said))
        self._store.add_label(
            stored, tag or FINAL, as_nifti(source, labels), _text(said, "client_id"), _text(said, "model"), params
        )
        if self._to_archive and (tag or FINAL) == FINAL:
            self._studies.send_correction(stored, self._store)
        return {"image": image, "label": image}

    def label(self, label: str, tag: str = FINAL) -> Response:
        """The newest version of a label, on the grid of its image."""
        stored = self._store.named(label)
        content = self._store.content_of_label(self._store.label(stored, tag))
        source = read_image(self._store.content_of(stored), stored.ending)
        return _attachment(as_nrrd(source, labels_of(content, source)), f"{stored.sha256[:16]}.nrrd")

    # --- sessions ---

    def begin_session(
        self,
        files: list[UploadFile],
        expiry: Annotated[int, Query(ge=0, le=MOST_SESSION)] = SESSION,
    ) -> dict:
        """Keep an image for a while."""
        if len(files) != 1:
            raise HTTPException(422, f"[bad-request] a session is of one image, not of {len(files)}")
        stored = self._keep(files[0], None)
        number = self._store.begin_session(stored, expiry or SESSION)
        return {"session_id": number, "session_info": {"kind": stored.kind}}

    def session(self, session_id: str) -> dict:
        """Whether it is there still."""
        return {"session_id": session_id, "kind": self._store.session(session_id).kind}

    def end_session(self, session_id: str) -> dict:
        """Forget the image, unless it has a name or a correction."""
        self._store.end_session(session_id)
        return {"session_id": session_id, "ended": True}

    # --- masks ---

    def infer(
        self,
        model: str,
        image: str | None = None,
        session_id: str | None = None,
        output: str | None = None,
        file: Annotated[UploadFile | None, File()] = None,
        params: Annotated[str, Form(max_length=MOST_PARAMS)] = "{}",
    ) -> Response:
        """The masks of an image, on its own grid: with `output` image alone, with json their volumes alone."""
        if model not in MODELS:
            raise NoSuchThing(f"there is no model of that name; there are {', '.join(MODELS)}")
        said = _object_in(params)
        stored = self._asked_for(image, session_id, file)
        source = read_image(self._store.content_of(stored), stored.ending)
        answer = self._segmenter.answer(source, model)
        self._store.add_answer(stored, answer.params["model"]["version"], *told_of(answer))
        if answer.refusal:
            raise answer.refusal
        self._store.add_label(stored, ORIGINAL, as_nifti(source, answer.labels), "", model, json.dumps(answer.params))
        if output == "json":
            return JSONResponse(answer.params)
        content = as_nrrd(source, answer.labels, compress=said.get("result_compress") is not False)
        if output == "image":
            return _attachment(content, "hippocampus.nrrd")
        return _both(answer, content)

    def _asked_for(self, image: str | None, session_id: str | None, file: UploadFile | None) -> StoredImage:
        if session_id is not None:
            return self._store.session(session_id)
        if file is not None and file.filename:
            return self._keep(file, image)
        if image is None:
            raise HTTPException(422, "[bad-request] no image is named: send ?image=ID, or a file")
        return self._named(image)

    def _named(self, name: str) -> StoredImage:
        """What was sent under that name, or else the series of the archive with that UID."""
        try:
            return self._store.named(name)
        except NoSuchThing:
            if self._archive is None:
                raise
            return image_of_series(self._archive, name, self._store)

    def next_sample(self, strategy: str, options: Annotated[dict | None, Body()] = None) -> dict:
        """An image that nobody has corrected yet; nothing where there is none."""
        if strategy != STRATEGY:
            raise NoSuchThing(f"there is no strategy of that name; there is {STRATEGY}")
        labels = self._store.newest_labels()
        left = [(name, one) for name, one in self._store.names().items() if FINAL not in labels.get(one.sha256, {})]
        if not left:
            return {}
        name, image = random.choice(left)
        dicom = {"StudyInstanceUID": image.study_uid, "SeriesInstanceUID": image.series_uid} if image.study_uid else {}
        return {"id": name, "name": f"{image.sha256[:16]}{image.ending}", "checksum": f"SHA256:{image.sha256}", **dicom}

    # --- learning ---

    def train(self, trainer: str = TRAINER, options: Annotated[dict | None, Body()] = None) -> dict:
        """Begin to train a candidate on the corrections; it takes no model's place by itself."""
        if trainer != TRAINER:
            raise NoSuchThing(f"there is no trainer of that name; there is {TRAINER}")
        said = options or {}
        said = said.get(TRAINER) if isinstance(said.get(TRAINER), dict) else said
        request = {"epochs": said["epochs"]} if "epochs" in said else {}
        try:
            return self._learning.start(request)
        except AlreadyRunning as error:
            raise HTTPException(429, "[busy] a training runs already") from error

    def training(self, check_if_running: bool = False) -> dict:
        """The last training, also when it has ended; with check_if_running only one that runs."""
        task = self._learning.running() if check_if_running else self._learning.latest()
        if task is None:
            raise NoSuchThing("no training runs" if check_if_running else "there was no training yet")
        return task

    def stop_training(self) -> Response:
        """Stop what runs; null where nothing does."""
        return JSONResponse(self._learning.stop())

    def log(self, lines: Annotated[int, Query(ge=1, le=10_000)] = 100) -> Response:
        """What the last training said."""
        return PlainTextResponse(self._learning.log(lines) + "\n")

    # --- for programs ---

    def measure_study(self, study_instance_uid: Annotated[str, Body(embed=True, max_length=64)]) -> Response:
        """Have a study of the archive measured as in the clinic; 202, and its state."""
        return JSONResponse(self._studies.ask(study_instance_uid), 202)

    def study(self, study_uid: str) -> dict:
        """waiting, working or done; and its result.json."""
        return self._studies.told(study_uid)

    def page(self, study_uid: str) -> Response:
        """The page of a study that was measured."""
        return Response(self._studies.picture(study_uid), media_type="image/png")

    def explain(self, image: str) -> Response:
        """Where to look first: how probable a hippocampus is in each voxel, in percent, NRRD on the image's grid.

        Between 25 and 75 lie as much as 8 % of the volume and 22 % of the errors. It is no confidence in the whole: the
        probabilities promise a Dice of .97 where it is .91. Maps of gradients and of occlusion were tried and say
        nothing that these do not.
        """
        stored = self._named(image)
        source = read_image(self._store.content_of(stored), stored.ending)
        answer = self._segmenter.answer(source, MODEL_OF[stored.kind])
        if answer.refusal:
            raise answer.refusal
        percent = np.round(100 * answer.chances).astype(np.uint8)
        return _attachment(as_nrrd(source, percent), "chances.nrrd")

    def drift(self, kind: Literal["crop", "head"] = "head") -> dict:
        """Volumes, verdicts, refusals and quality values of the latest images, against what was usual in training."""
        return drift(self._store, kind)

    def drift_picture(self, kind: Literal["crop", "head"] = "head") -> Response:
        """The same, drawn."""
        usual = usual_ranges(kind, self._segmenter.setup.limits)
        return Response(draw_drift(drift(self._store, kind), kind, usual), media_type="image/png")


def _contents(app: FastAPI) -> str:
    """What can be asked, for people; openapi.json is the same for programs."""
    rows = [
        f"<tr><td>{method.upper()}<td><code>{html.escape(path)}</code><td>{html.escape(one.get('description', ''))}"
        for path, methods in app.openapi()["paths"].items()
        for method, one in methods.items()
    ]
    head = f"<!doctype html><meta charset=utf-8><title>{app.title}</title><h1>{app.title} {app.version}</h1>"
    style = "<style>body{font:15px sans-serif;margin:2em}td{padding:.3em 1em .3em 0;vertical-align:top}</style>"
    said = f"<p>{app.description}<p>For programs: <a href=openapi.json>openapi.json</a>"
    return f"{head}{style}{said}<table>{''.join(rows)}</table>"


# --- answers ----------------------------------------------------------------------------------------------------------


def _object(image: StoredImage, labels: dict) -> dict:
    return {
        "image": {"ext": image.ending, "info": {"kind": image.kind}},
        "labels": {
            tag: {"ext": ".nrrd", "info": {"params": {"label_names": NAMES[image.kind]}, "ts": int(label.at)}}
            for tag, label in labels.items()
        },
    }


def _attachment(content: bytes, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _both(answer: Answer, masks: bytes) -> Response:
    """What is said and the masks in one form, whole, as Slicer reads no chunks."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n'
        f"{json.dumps(answer.params)}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="hippocampus.nrrd"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + masks + f"\r\n--{boundary}--\r\n".encode()
    return Response(body, media_type=f"multipart/form-data; boundary={boundary}")


# --- what viewers say -------------------------------------------------------------------------------------------------


def _object_in(params: str) -> dict:
    try:
        found = json.loads(params or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(422, "[bad-request] params is no JSON object")
    return found


def _text(said: dict, key: str) -> str:
    """What a viewer says of itself, as far as it is a line."""
    value = said.get(key)
    return printable(value)[:200] if isinstance(value, str) else ""


def _segment_names(said: dict) -> list[str] | None:
    """The names of the segments in their order; None where the viewer gives none."""
    rows = said.get("label_info")
    if not isinstance(rows, list) or not rows:
        return None
    return [str(row.get("name")) if isinstance(row, dict) else str(row) for row in rows]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _line(status: int, detail: str) -> Response:
    return JSONResponse({"detail": printable(detail)[:1000]}, status)


def _not_found(request: Request, error: NoSuchThing) -> Response:
    return _line(404, f"[not-found] {error}")


def _stopped(request: Request, stop: Stop) -> Response:
    status = 422 if isinstance(stop, Refusal) else 503
    return _line(status, f"[{stop.code}] {stop.reason}")


def _not_understood(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first.get("loc", ()))
    return _line(422, f"[bad-request] {place}: {first.get('msg', '')}")


def _our_fault(request: Request, error: Exception) -> Response:
    """Told by its place alone, as its words may quote what was sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"[internal-error] {type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
    print(place, file=sys.stderr, flush=True)
    return _line(500, place)


def _said(request: Request, error: HttpError) -> Response:
    detail = str(error.detail)
    return _line(error.status_code, detail if detail.startswith("[") else f"[bad-request] {detail}")
