"""The status page, asked over HTTP as a browser, a scraper and an attacker would."""

import dataclasses
import hashlib
import http.client
import http.server
import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from common.refusal import CODES
from node import status_page
from node.ai_node import AiNode
from node.incoming import Incoming
from node.status_page import STALLED, PageOptions, StatusPage, duration
from node.study_queue import (
    DISCOVERED,
    DONE,
    FAILED,
    INFERRING,
    LOADING,
    REPORTING,
    SENDING,
    STATES,
    VALIDATING,
    WARNING,
    Pauses,
    Report,
    StudyQueue,
)
from phantom import StudyHeader
from study.study_result import StudyResult

pytestmark = pytest.mark.slow

UID, OTHER = "1.2.3.4", "1.2.3.5"
FIRST, SECOND = "ONE@localhost:4242", "https://two.example/dicom-web"
VIEWER = "http://localhost:3000/viewer?StudyInstanceUIDs={study}"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
SERVER = Path(status_page.__file__).parents[1] / "ai_server.py"


class Asked(SimpleNamespace):
    """status, headers, body (bytes), text."""


class Client:
    """Asks a page; follows no redirect, and sends a path as it is."""

    def __init__(self, page: StatusPage):
        self.page, self.port = page, page.port

    def get(self, path: str = "/", **headers: str) -> Asked:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def ask(self, method: str, path: str, body: str | None = None, headers: dict | None = None) -> Asked:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        text = content.decode("utf-8", "replace")
        return Asked(status=answer.status, headers=answer.headers, body=content, text=text)

    def token(self) -> str:
        return re.search(r'name="token" value="([^"]+)"', self.get().text)[1]

    def retry(self, uid: str = UID, token: str | None = None, **headers: str) -> int:
        form = {"study": uid, "token": self.token() if token is None else token}
        return self.post(urlencode(form), {name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, body: str, headers: dict) -> int:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.ask("POST", "/retry", body, headers).status


@pytest.fixture
def bench(make_bench):
    return make_bench({FIRST: lambda paths: None, SECOND: lambda paths: None})


@pytest.fixture
def open_page(bench) -> Iterator[Callable[..., Client]]:
    """open_page(...): a client of a page of the bench's node, with these options."""
    pages = []

    def begin(node: AiNode | None = None, **options: object) -> Client:
        node = node or AiNode(bench.settings, bench.node.incoming, bench.node.engine)
        page = StatusPage(node, PageOptions(0, **options))
        pages.append(page)
        page.__enter__()
        return Client(page)

    yield begin
    for page in pages:
        page.__exit__()


@pytest.fixture
def client(open_page) -> Client:
    return open_page(viewer_url=VIEWER)


def write_result(bench, uid: str = UID, **changes: object) -> bytes:
    """A result as the node would write it, pseudonymous where nothing else is said; returns its picture."""
    folder = bench.settings.results_of(uid)
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (1400, 1000), "#123456").save(folder / "report.png")
    content = (folder / "report.png").read_bytes()
    row = {"file": "report.png", "sop_instance_uid": None, "sha256": hashlib.sha256(content).hexdigest()}
    volumes = {"anterior": 1712.4, "posterior": 1502.2, "total": 3214.6}
    result = StudyResult(
        study_instance_uid=uid, pseudonym="HV-0123", volumes_mm3=volumes, quality_verdict="pass", outputs=[row]
    )
    result = dataclasses.replace(result, seconds={"read": 0.5, "model": 1.5}, **changes)
    (folder / "result.json").write_text(json.dumps(dataclasses.asdict(result)))
    return content


def bring(bench, state: str, uid: str = UID, code: str | None = None, reason: str | None = None) -> None:
    """A study into a state, with results where it has been so far."""
    queue: StudyQueue = bench.queue
    queue.observe(uid, {f"{uid}/a": [1, 1]}, state != DISCOVERED, 900)
    if state == DISCOVERED:
        return
    claim = queue.claim(60)
    for step in (LOADING, INFERRING, REPORTING):
        if state in (VALIDATING, claim.study_uid):
            return
        if state == FAILED:
            queue.set_aside(claim, code or "bad-model", reason or "there is none")
            return
        queue.enter(claim, step)
        if state == step:
            return
    write_result(bench, uid)
    outcome = WARNING if state == WARNING else DONE
    queue.reported(claim, Report(outcome, code, reason, content="x"), [FIRST, SECOND])
    for destination in (FIRST,) if state == SENDING else (FIRST, SECOND):
        queue.delivered(queue.claim_delivery(destination, 60), True, "confirmed")


def bring_unsent(bench, detail: str = "connection refused") -> None:
    """A study that one of two destinations never took."""
    bring(bench, SENDING)
    delivery = bench.queue.claim_delivery(SECOND, 60)
    assert bench.queue.delivered(delivery, False, detail, Pauses(1, 1, 1, 1)) == "aside"


# --- what the page says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_shown_and_counted(bench, client, state):
    bring(bench, state)
    assert bench.state(UID) == state
    page = client.get()
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    assert f'<span class="badge {state}">{state}</span>' in page.text
    assert UID in page.text and "Research use only" in page.text
    assert re.search(r"for \d s", page.text)  # 0, or 1 where the clock went on meanwhile
    assert re.search(rf"<b>1</b> {state}<", page.text)
    assert ("3,215" in page.text) == (state in (SENDING, DONE, WARNING))
    assert VIEWER.replace("{study}", UID) in page.text
    assert ('action="/retry"' in page.text) == (state == FAILED)
    for other in STATES:
        assert (UID in client.get(f"/?state={other}").text) == (other == state)


def test_what_was_set_aside_comes_first_with_code_and_advice(bench, client):
    bring(bench, DONE, OTHER)
    bring(bench, FAILED)
    text = client.get().text
    assert text.index(f"study-{UID}") < text.index(f"study-{OTHER}")
    assert CODES["bad-model"].advice in text and ">bad-model<" in text
    assert "<title>(1) " in text and "needed=1" in text
    assert "needed=1" in client.get(f"/?state={DONE}").text


def test_what_waits_for_which_destination(bench, client):
    bring(bench, SENDING)
    delivery = bench.queue.claim_delivery(SECOND, 60)
    bench.queue.delivered(delivery, False, f"{SECOND}: connection refused")
    text = re.sub(r"\s+", " ", client.get().text)
    assert re.search(rf"<td>{FIRST}</td><td class=\"\">0</td>", text)
    assert re.search(rf"<td>{SECOND}</td><td class=\"some\">1</td>.*in 5 s.*<td>connection refused</td>", text)


def test_a_result_of_an_earlier_round_is_not_shown(bench, client):
    bring(bench, DONE)
    bench.queue.observe(UID, {"late": [1, 1]}, True, 900)
    assert bench.state(UID) == DISCOVERED
    assert "3,215" not in client.get().text
    assert client.get(f"/studies/{UID}/report.png").status == 404


def test_a_long_list_is_cut_and_says_so(bench, client, monkeypatch):
    monkeypatch.setattr(status_page, "MOST_ROWS", 2)
    for number in range(3):
        bring(bench, DONE, f"1.2.3.{number}")
    text = client.get().text
    assert text.count("<tr id=") == 2 and "of 3" in text


def test_nothing_that_a_peer_says_is_taken_for_html(bench, open_page):
    client = open_page(viewer_url=VIEWER, show_identity=True)
    bring_unsent(bench, "<script>alert(1)</script>")
    bring(bench, FAILED, OTHER, reason='"><img src=x onerror=alert(2)>')
    text = client.get("/?state=%22%3E%3Cscript%3E").text
    assert "<script" not in text and "<img src=x" not in text and "&lt;script&gt;" in text


def test_the_form_follows_no_result_that_cannot_be_read(bench, client):
    bring(bench, DONE)
    (bench.settings.results_of(UID) / "result.json").write_text('{"outputs": 3')
    assert client.get().status == 200
    (bench.settings.results_of(UID) / "result.json").write_text('{"outputs": [3], "quality": 5}')
    assert client.get().status == 200


@pytest.mark.parametrize(
    "seconds, said", [(0.4, "0 s"), (61, "1 min"), (3600, "1 h"), (5000, "1 h 23 min"), (90000, "1 d 1 h")]
)
def test_time_is_told_as_a_person_does(seconds, said):
    assert duration(seconds) == said


# --- whose study it is ------------------------------------------------------------------------------------------------


def real_study(bench, make_study, **changes: object) -> tuple[str, str]:
    """A study that the node itself worked on; its UID and the patient's name."""
    header = StudyHeader.from_seed(1)
    shutil.copytree(make_study(seed=1), bench.incoming / "st_1")
    bench.settle()
    (uid,) = (one["study_uid"] for one in bench.queue.studies())
    assert bench.state(uid) in (DONE, WARNING)
    return uid, str(header.patient_name).replace("^", " ")


def test_a_name_is_shown_only_where_that_was_asked_for(make_bench, make_study, open_page):
    bench = make_bench()
    uid, name = real_study(bench, make_study)
    node = AiNode(bench.settings, bench.node.incoming, bench.node.engine)
    quiet, open_one = open_page(node), open_page(node, show_identity=True)
    assert uid in quiet.get().text and name not in quiet.get().text and "<img" not in quiet.get().text
    assert {quiet.get(f"/studies/{uid}/{file}.png").status for file in ("report", "thumbnail")} == {404}
    assert name in open_one.get().text and "<img" in open_one.get().text
    picture = (bench.settings.results_of(uid) / "report.png").read_bytes()
    assert open_one.get(f"/studies/{uid}/report.png").body == picture


def test_a_pseudonymous_page_is_shown(bench, client):
    bring(bench, DONE)
    content = write_result(bench)
    answer = client.get(f"/studies/{UID}/report.png")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "image/png", content)
    small = client.get(f"/studies/{UID}/thumbnail.png")
    assert small.status == 200 and len(small.body) < len(content)
    assert "HV-0123" in client.get().text


def test_a_page_with_a_name_that_just_took_the_place_is_not_shown(bench, client):
    bring(bench, DONE)
    Image.new("RGB", (10, 10)).save(bench.settings.results_of(UID) / "report.png")
    assert client.get(f"/studies/{UID}/report.png").status == 404


def test_a_reason_that_may_quote_a_file_is_for_those_who_asked(bench, open_page):
    bring(bench, FAILED, code="cannot-read", reason="MUELLER_HANS.dcm cannot be read")
    assert "MUELLER" not in open_page().get().text
    assert "MUELLER" in open_page(show_identity=True).get().text


def test_a_fault_of_ours_is_told_once_and_without_its_words(bench, client, monkeypatch):
    def err(*_: object) -> None:
        raise LookupError("MUELLER")

    assert client.get().status == 200
    monkeypatch.setattr(StudyQueue, "studies", err)
    answers = [client.get() for _ in range(3)]
    assert {(one.status, one.text) for one in answers} == {(500, "this cannot be answered now: LookupError\n")}
    assert bench.told == ["trouble with the status page: LookupError"]


# --- no way to other files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/studies/../secret/report.png",
        "/studies/%2e%2e/report.png",
        "/studies/%2e%2e%2fsecret/report.png",
        "/studies/..%2f..%2fsecret/report.png",
        "/studies//etc/passwd",
        "/studies/%2fetc/report.png",
        "/studies/./report.png",
        "/studies/1.2.3.4%00/report.png",
        "/studies/1.2.3.4/../1.2.3.4/result.json",
        "/studies/1.2.3.4/result.json",
        "/studies/1.2.3.4/report.dcm",
        "/studies/1.2.3.99/report.png",  # is there, and no study of the node
        "/../status.html",
        "/templates/status.html",
    ],
)
def test_no_address_leads_to_another_file(bench, client, path):
    bring(bench, DONE)
    for uid in ("1.2.3.99", "../secret", ".", ".."):
        write_result(bench, uid)
    answer = client.get(path)
    assert answer.status == 404 and not answer.body.startswith(b"\x89PNG")


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "0.0.0.0", "[::1]"])
def test_who_was_rebound_to_us_gets_nothing(bench, client, host):
    bring(bench, DONE)
    for path in ("/", "/metrics", "/healthz", f"/studies/{UID}/report.png"):
        answer = client.get(path, Host=host)
        assert answer.status == 400 and UID not in answer.text


def test_a_tunnel_from_another_port_is_let_in(client):
    assert client.get("/", Host="localhost:9999").status == 200


def test_nobody_but_this_machine_can_reach_it(client):
    assert client.page._socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", client.port), timeout=5)


def test_every_answer_carries_the_headers(bench, client):
    bring(bench, DONE)
    paths = ("/", "/nothing", "/retry", "/metrics", "/healthz", "/style.css", f"/studies/{UID}/thumbnail.png")
    answers = [*map(client.get, paths), client.get("/", Host="evil.example"), client.ask("POST", "/retry", "x")]
    assert {one.status for one in answers} == {200, 400, 403, 404, 405}
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script" not in policy and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Server" not in answer.headers


# --- retry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [SAME_SITE, {"Origin": "http://127.0.0.1:{port}"}])
def test_retry_begins_the_work_again(bench, client, named):
    bring(bench, FAILED)
    headers = {name: value.format(port=client.port) for name, value in named.items()}
    assert client.retry(**headers) == 303
    assert bench.state(UID) == DISCOVERED
    assert client.retry(token=client.page.token, **headers) == 409  # nothing is left to mend


def test_retry_begins_the_sending_again(bench, client):
    bring_unsent(bench)
    assert bench.state(UID) == WARNING
    assert client.retry(**SAME_SITE) == 303
    assert bench.state(UID) == SENDING


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "http://evil.example", **SAME_SITE},
        {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_retry_is_refused_to_other_sites(bench, client, headers):
    bring(bench, FAILED)
    assert client.retry(**{name: value.format(port=client.port) for name, value in headers.items()}) == 403
    assert bench.state(UID) == FAILED


@pytest.mark.parametrize(
    "form",
    [
        f"study={UID}",
        f"study={UID}&token=",
        f"study={UID}&token=wrong",
        f"study={UID}&token=%C3%A4",
        "",
        "\x00\xff" * 50,
        "token={token}&x=" + "y" * 5000,
    ],
)
def test_retry_is_refused_without_the_token(bench, client, form):
    bring(bench, FAILED)
    assert client.post(form.replace("{token}", client.token()), SAME_SITE) == 403
    assert bench.state(UID) == FAILED


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_retry_is_refused_by_other_methods(bench, client, method):
    bring(bench, FAILED)
    path = f"/retry?{urlencode({'study': UID, 'token': client.token()})}"
    assert client.ask(method, path, headers=SAME_SITE).status == 405
    assert bench.state(UID) == FAILED


def test_a_token_of_another_run_is_refused(bench, open_page):
    bring(bench, FAILED)
    assert open_page().retry(token=open_page().token(), **SAME_SITE) == 403


def test_retry_of_what_is_no_study_says_so(bench, client):
    bring(bench, FAILED)
    assert client.retry("../../etc", **SAME_SITE) == 409


# --- metrics and health -----------------------------------------------------------------------------------------------


def metrics(client: Client) -> dict[tuple, float]:
    """Values by name and labels."""
    answer = client.get("/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name.removeprefix("hippo_node_"), *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_are_read_by_prometheus(bench, client):
    bring(bench, DONE, OTHER)
    bring(bench, FAILED)
    bring(bench, SENDING, "1.2.3.6")
    found = metrics(client)
    assert {state: found["studies", state] for state in STATES} == {
        **dict.fromkeys(STATES, 0),
        **{DONE: 1, FAILED: 1, SENDING: 1},
    }
    assert found["studies_by_code", "bad-model"] == 1
    assert found["deliveries", SECOND, "waiting"] == 1 and found["deliveries", FIRST, "waiting"] == 0
    assert found["idle_seconds",] == 0
    assert found["step_seconds_sum", "model"] == 3.0 and found["step_seconds_count", "model"] == 2
    assert metrics(client)["step_seconds_count", "model"] == 2  # each study once
    assert client.retry(**SAME_SITE) == 303
    assert ("studies_by_code", "bad-model") not in metrics(client)


def test_the_age_of_the_oldest_that_waits(bench, client):
    bring(bench, DISCOVERED)
    assert metrics(client)["oldest_seconds", DISCOVERED] < 60
    with sqlite3.connect(bench.settings.database) as database:
        database.execute("UPDATE studies SET changed = '2020-01-01T00:00:00Z'")
    assert metrics(client)["oldest_seconds", DISCOVERED] > 1e8
    with sqlite3.connect(bench.settings.database) as database:
        database.execute("UPDATE studies SET changed = '2999-01-01T00:00:00Z'")
    assert metrics(client)["oldest_seconds", DISCOVERED] == 0  # a clock that was set


def health(client: Client) -> tuple[int, str]:
    answer = client.get("/healthz")
    assert answer.text.count("\n") == 1
    return answer.status, answer.text.strip()


def test_a_node_that_goes_on_is_healthy(client):
    assert health(client) == (200, "ok")
    assert "working" in client.get().text


def test_a_node_that_stands_still_is_not(bench, client):
    bench.clock.wait(STALLED + 1)
    assert health(client) == (503, "the node has made no step for 1 min")
    assert "the node has made no step for 1 min" in client.get().text
    client.page.node.step(bench.queue)
    assert health(client)[0] == 200


def test_a_node_that_meets_trouble_is_not(bench, client, monkeypatch):
    def cannot(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/incoming/MUELLER")

    monkeypatch.setattr(Incoming, "watch", cannot)
    client.page.node.step(bench.queue)
    assert health(client) == (503, "trouble with the incoming folder: Permission denied")


def test_a_database_that_is_gone_is_not(bench, client):
    assert health(client)[0] == 200
    bench.settings.database.rename(bench.folder / "away")
    assert health(client) == (503, "the database cannot be written: it is gone")
    assert client.retry(token=client.page.token, **SAME_SITE) == 503
    assert not bench.settings.database.exists()


def test_a_database_that_others_hold_is_not_and_the_page_is_there(bench, client, monkeypatch):
    monkeypatch.setattr(status_page, "WAIT", 0.3)
    bring(bench, FAILED)
    assert client.get().status == 200
    other = sqlite3.connect(bench.settings.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert health(client) == (503, "the database was not free for 0.3 s")
    assert client.retry(**SAME_SITE) == 503
    assert UID in client.get().text
    other.execute("ROLLBACK")
    other.close()
    for _ in range(200):
        if health(client)[0] == 200:
            return
        time.sleep(0.1)
    pytest.fail("it never was healthy again")


def test_a_disk_that_is_full_is_not(client, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    assert health(client) == (503, "the disk of the database is full")


def test_a_database_that_is_none_any_more_is_not(bench, client):
    bring(bench, DONE)
    (bench.folder / "queue.sqlite3-wal").unlink(missing_ok=True)
    bench.settings.database.write_bytes(b"no database" * 1000)
    assert health(client)[0] == 503


# --- beside the node --------------------------------------------------------------------------------------------------


def test_it_ends_with_the_node_though_somebody_hangs_on(open_page):
    client = open_page()
    hanging = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(3)]
    for one in hanging[1:]:
        one.sendall(
            b"POST /retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nSec-Fetch-Site: same-origin\r\n\r\nab"
        )
    assert client.get().status == 200
    begun = time.monotonic()
    client.page.__exit__()
    assert time.monotonic() - begun < 8
    assert not client.page._thread.is_alive()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", client.port), timeout=5)
    for one in hanging:
        one.close()


def run_server(folder: Path, model: Path, *more: str) -> subprocess.Popen:
    (folder / "incoming").mkdir(exist_ok=True)
    command = [sys.executable, SERVER, "--incoming", folder / "incoming", "--database", folder / "queue.sqlite3"]
    command += ["--output-dir", folder / "out", "--model-path", model, "--max-workers", "1", *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_the_program_serves_it_and_stops_it(tmp_path, free_port, open_setup_files):
    running = run_server(tmp_path, open_setup_files.model_path, "--status-port", str(free_port))
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/healthz", timeout=60) as answer:
                    assert answer.read() == b"ok\n"
                break
            except (urllib.error.URLError, ConnectionError):
                assert running.poll() is None, running.stderr.read()
                time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
        assert running.stderr.read() == ""
    finally:
        running.kill()
        running.wait()


def test_a_port_that_is_taken_is_told_in_a_line(tmp_path, open_setup_files):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        running = run_server(tmp_path, open_setup_files.model_path, "--status-port", port)
        told = running.communicate(timeout=60)[1]
    assert (running.returncode, told) == (1, f"no status page on port {port}: Address already in use\n")


@pytest.mark.parametrize(
    "option", [["--status-port", "99999"], ["--status-port", "x"], ["--viewer-url", "javascript:alert({study})"]]
)
def test_options_that_make_no_sense_are_usage(tmp_path, open_setup_files, option):
    running = run_server(tmp_path, open_setup_files.model_path, *option)
    running.communicate(timeout=60)
    assert running.returncode == 2


# --- in a real browser ------------------------------------------------------------------------------------------------


@pytest.fixture
def browser(need_program) -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    need_program("chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


def test_a_browser_without_scripts_shows_it_and_begins_a_study_again(bench, client, browser):
    bring(bench, DONE, OTHER)
    bring(bench, FAILED)
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1440, "height": 900})
    page, told = context.new_page(), []
    page.on("console", lambda message: told.append(message.text))
    page.goto(f"http://127.0.0.1:{client.port}/")
    assert page.locator("tbody tr[id]").count() == 2
    picture = page.locator("img").first
    assert picture.bounding_box()["width"] > 100
    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(12, 15, 20)"
    page.get_by_role("button", name="Retry").click()
    page.wait_for_url(f"http://127.0.0.1:{client.port}/")
    assert page.get_by_text("Nothing is set aside.").is_visible()
    assert bench.state(UID) == DISCOVERED
    assert told == []


def test_a_form_of_another_site_begins_nothing_in_a_browser(bench, client, browser):
    bring(bench, FAILED)
    form = f"""<form method="post" action="http://127.0.0.1:{client.port}/retry">
        <input name="token" value="{client.page.token}"><button name="study" value="{UID}">Win</button></form>"""

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(form.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Evil) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://localhost:{evil.server_port}/")
        page.get_by_role("button").click()
        page.get_by_text("only the status page itself").wait_for()
        evil.shutdown()
    assert bench.state(UID) == FAILED
