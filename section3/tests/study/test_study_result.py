"""result.json: whose fault it is that there is no number, what was measured with, and what was written."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from choosing.series_rules import consider_series, load_rules, rules_sha256
from common.refusal import CODES, FAILED, Failure, Refusal
from common.send_outcome import SendOutcome
from measuring.measurement import Measurement
from objects.provenance import REVISION
from reading.dicom_series import list_files, read_study
from study.output_folder import write_result
from study.study_result import StudyResult, output_rows, read_result, sha256_of

pytestmark = pytest.mark.slow

MEASURED = StudyResult(volumes_mm3={"total": 3.0}, intervals_mm3={"total": [2.0, 4.0]}, outputs=[{"file": "a"}])


def stop(code: str) -> Refusal | Failure:
    return (Failure if CODES[code].status == FAILED else Refusal)(code, "there is a reason")


@pytest.mark.parametrize("code", CODES)
def test_it_says_whose_fault_it_is_and_whether_trying_again_can_help(tmp_path, code):
    write_result(MEASURED.stopped(stop(code)), tmp_path)
    written = json.loads((tmp_path / "result.json").read_text())
    assert (written["status"], written["code"], written["reason"]) == (CODES[code].status, code, "there is a reason")
    assert written["again"] is CODES[code].again
    assert (written["volumes_mm3"], written["intervals_mm3"], written["outputs"]) == (None, None, [])


def test_some_failures_may_pass_and_no_refusal_does():
    again = {code for code, meaning in CODES.items() if meaning.again}
    assert {"cannot-read", "cannot-write", "out-of-memory", "not-stored", "cannot-fetch", "worker-died"} <= again
    assert not again & {"bad-model", "bad-rules", "verification-failed", "internal-error"}
    assert all(CODES[code].status == FAILED for code in again)


def test_of_a_success_there_is_nothing_to_try_again(make_study, process, out):
    process(make_study())
    written = json.loads((out / "result.json").read_text())
    assert (written["status"], written["code"], written["reason"], written["again"]) == ("success", None, None, None)


@pytest.mark.parametrize("reason", ["gap", "no crop", "nothing found"])
def test_of_a_refusal_trying_again_cannot_help(make_refused, process, out, reason):
    process(make_refused(reason))
    written = json.loads((out / "result.json").read_text())
    assert (written["status"], written["again"]) == ("refused", False)


@pytest.mark.parametrize("pseudonymous", [False, True])
def test_it_says_what_the_study_was_measured_with(make_study, make_refused, process, setup, out, pseudonymous):
    setup = replace(setup, pseudonymous=pseudonymous)
    for study in (make_study(), make_refused("gap"), make_refused("no crop")):
        process(study, setup)
        written = json.loads((out / "result.json").read_text())
        assert written["setup_sha256"] == setup.digest
        assert written["model"] == setup.agent.identity
        assert (written["rules_sha256"], written["limits_sha256"]) == (rules_sha256(setup.rules), None)
        assert written["revision"] == REVISION
        assert (written["pseudonym"] is not None) == pseudonymous


def test_what_became_of_sending_stays_with_a_stop():
    sent = MEASURED.with_sending(SendOutcome(True, "it has another", False)).stopped(stop("not-stored"))
    assert (sent.sent, sent.stored, sent.send_detail, sent.again) == (True, False, "it has another", True)


def test_it_is_read_as_it_was_written(make_study, process, out):
    result = process(make_study())
    assert asdict(read_result(out)) == json.loads(json.dumps(asdict(result)))


@pytest.mark.parametrize(
    ("content", "error"), [(None, OSError), ("{", ValueError), ("[1]", TypeError), ('{"seen": 1}', TypeError)]
)
def test_what_is_no_result_of_this_version_is_not_read(tmp_path, content, error):
    if content:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(error):
        read_result(tmp_path)


def test_each_output_has_the_digest_of_its_file(tmp_path):
    (tmp_path / "report.dcm").write_bytes(b"page")
    (tmp_path / "report.png").write_bytes(b"picture")
    rows = output_rows(tmp_path, {"report.dcm": "1.2", "report.png": None})
    assert [(row["file"], row["sop_instance_uid"]) for row in rows] == [("report.dcm", "1.2"), ("report.png", None)]
    assert [row["sha256"] for row in rows] == [hashlib.sha256(b"page").hexdigest(), sha256_of(tmp_path / "report.png")]


# --- the table of the series, as it is printed ------------------------------------------------------------------------


def test_the_table_has_a_line_for_each_series_whatever_the_files_say(make_study, crop_files, edit):
    study = make_study(brain_series=2)
    nasty = "<script>alert(1)</script>\x1b[2J\n$(reboot)" + 5000 * "x"
    edit(crop_files(study), lambda dataset: setattr(dataset, "SeriesDescription", nasty))
    verdicts = tuple(consider_series(read_study(list_files(study)), load_rules()))
    refused = Measurement({}, verdicts, refusal=Refusal("no-hippocrop-series", "none of 3 series can be the input"))
    table = StudyResult().with_measurement(refused).series_table()
    lines = table.split("\n")
    assert len(lines) == 4
    assert "\x1b" not in table
    assert max(map(len, lines)) < 500
    assert sum("rejected" in line and "description" in line for line in lines) == 3


def test_the_columns_of_the_table_stand_below_each_other():
    row = {"series_instance_uid": "1.2.3", "description": "HippoCrop", "instances": 17, "reason": "meets all"}
    other = {**row, "description": "two\nlines\x1b[2J" + "x" * 300}
    rows = [{**row, "accepted": True, "condition": None}, {**other, "accepted": False, "condition": "modality"}]
    lines = StudyResult(series_considered=rows).series_table().split("\n")
    assert lines[0].split() == ["series", "description", "images", "verdict", "decided", "by", "reason"]
    assert lines[1].split() == ["1.2.3", "HippoCrop", "17", "accepted", "all", "meets", "all"]
    assert lines[2].split()[-3:] == ["modality", "meets", "all"]
    assert len({line.index(word) for line, word in zip(lines, ("verdict", "accepted", "rejected"), strict=True)}) == 1
