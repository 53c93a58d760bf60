"""A client that speaks as 3D Slicer's module does: a new connection a call, exact paths, forms by hand."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

from servers import wait_until

PROGRAM = Path(__file__).resolve().parents[1] / "src" / "viewer_server.py"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        return self.json["detail"]

    @property
    def parts(self) -> dict[str, bytes]:
        """Of a form: fields by their names, files by their file names."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        found = message_from_bytes(head + self.body)
        return {
            part.get_filename() or part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in found.get_payload()
        }


class ViewerClient:
    """server: its address, which may end in a prefix."""

    def __init__(self, server: str, **headers: str):
        self.url, self.headers = urlsplit(server), headers

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = HTTPConnection(self.url.hostname, self.url.port, timeout=60)
        try:
            connection.request(method, self.url.path.rstrip("/") + path, body, {**self.headers, **headers})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def form(self, method: str, path: str, fields: dict, files: dict[str, tuple[str, bytes]]) -> Answer:
        """files: name of the field to name of the file and content."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        for field, (name, content) in files.items():
            disposition = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'
            parts += [f"--{boundary}\r\n{disposition}\r\n\r\n".encode(), content, b"\r\n"]
        body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
        return self.ask(method, path, body, **{"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def upload(self, name: str, content: bytes, file: str = "image.nii.gz") -> Answer:
        params = json.dumps({"client_id": "user-xyz"})
        return self.form(
            "PUT", f"/datastore/?image={quote(name, safe='')}", {"params": params}, {"file": (file, content)}
        )

    def infer(self, model: str, name: str, query: str = "", **params: object) -> Answer:
        said = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "user-xyz", **params}
        path = f"/infer/{model}?image={quote(name, safe='')}{query}"
        return self.form("POST", path, {"params": json.dumps(said)}, {})

    def save(
        self, name: str, content: bytes, segments: list[str], file: str = "/home/user/x.nii.gz", tag: str = ""
    ) -> Answer:
        info = [{"name": one, "idx": 2 * number + 1} for number, one in enumerate(segments)]
        params = json.dumps({"label_info": info, "model": "hippocampus", "client_id": "doctor"})
        path = f"/datastore/label?image={quote(name, safe='')}" + (f"&tag={tag}" if tag else "")
        return self.form("PUT", path, {"params": params}, {"label": (file, content)})


@contextmanager
def serving_viewers(folder: Path, *options: object, **environment: str) -> Iterator[ViewerClient]:
    """A client of a service that stores in `folder`, until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    command = [sys.executable, PROGRAM, "--port", "0", "--store", folder / "store", *options]
    with log.open("w") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file, env=os.environ | environment)

    def address() -> str | None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"serving at (http://[^;]+);", log.read_text())
        return found and found[1]

    try:
        yield ViewerClient(wait_until(address).replace("/k/KEY", ""))
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
