"""The options that the programs have in common, and what they make of them."""

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

import pytest

import ai_server
import batch_inference_dcm
import inference_dcm
from archive.dicomweb import DicomWebArchive
from archive.dimse import DimseArchive
from archive.sending import Patience, send_to_archive
from archive.tls import TlsFiles
from choosing.series_rules import load_rules
from common.refusal import Failure
from common.shipped import DEFAULT_MODEL
from common.start import positive
from options import add_common_options, archive_at, destinations, sender, setup_files


def parse(*arguments: str):
    parser = ArgumentParser()
    add_common_options(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "archive"),
    [
        ((), DimseArchive("localhost", 4242, "ORTHANC")),
        (
            ("--orthanc-host", "pacs", "--orthanc-port", "104", "--orthanc-aec", "ARCHIVE"),
            DimseArchive("pacs", 104, "ARCHIVE"),
        ),
    ],
)
def test_what_is_asked_for_goes_to_the_archive_that_is_named(arguments, archive):
    send = sender(parse("--send-to-orthanc", *arguments))
    assert (send.func, send.keywords) == (send_to_archive, {"archive": archive})


def test_by_dicomweb_it_goes_to_the_address(tmp_path):
    send = sender(parse("--dicomweb", "https://pacs/dicom-web/", "--ca-file", str(tmp_path / "ca.pem")))
    expected = DicomWebArchive("https://pacs/dicom-web", TlsFiles(tmp_path / "ca.pem"))
    assert (send.func, send.keywords) == (send_to_archive, {"archive": expected})


def test_a_node_sends_to_all_that_are_named_with_one_attempt_at_a_time(tmp_path):
    args = parse("--send-to-orthanc", "--ca-file", str(tmp_path / "ca.pem"))
    found = destinations(args, [archive_at("MORE@pacs:104"), archive_at("https://pacs/dicom-web")])
    once, tls = Patience(pauses=()), TlsFiles(tmp_path / "ca.pem")
    assert {name: send.keywords["archive"] for name, send in found.items()} == {
        "ORTHANC at localhost:4242": DimseArchive("localhost", 4242, "ORTHANC", patience=once),
        "MORE at pacs:104": DimseArchive("pacs", 104, "MORE", patience=once),
        "https://pacs/dicom-web": DicomWebArchive("https://pacs/dicom-web", tls, patience=once),
    }
    assert destinations(parse()) == {}


def test_with_a_certificate_dicom_goes_by_tls(tmp_path):
    args = parse("--send-to-orthanc", "--tls", "our.key", "our.crt", "--ca-file", "ca.pem")
    tls = TlsFiles(Path("ca.pem"), (Path("our.key"), Path("our.crt")))
    found = destinations(args, [archive_at("MORE@pacs:104"), archive_at("https://pacs/dicom-web")])
    assert [send.keywords["archive"].tls for send in found.values()] == [tls] * 3
    assert sender(args).keywords["archive"].tls == tls


@pytest.mark.parametrize("options", [["--ca-file", "none.pem"], ["--tls", "none.key", "none.crt"]])
@pytest.mark.parametrize("program", [inference_dcm, batch_inference_dcm, ai_server])
def test_certificates_that_cannot_be_read_are_usage(program, options, tmp_path, capsys):
    node = ["--incoming", str(tmp_path), "--database", str(tmp_path / "q")] if program is ai_server else [str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        program.main([*node, *options])
    assert end.value.code == 2
    assert options[1] in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", [inference_dcm, batch_inference_dcm])
def test_who_requires_that_results_are_sent_says_where_to(program, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        program.main([str(tmp_path), "--require-sent"])
    assert end.value.code == 2
    assert "--require-sent needs --send-to-orthanc or --dicomweb" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", ""])
def test_what_is_to_be_positive_is(text):
    assert positive("12") == 12
    with pytest.raises(ArgumentTypeError, match="no whole number above 0"):
        positive(text)


def test_what_nobody_asked_for_is_not_sent():
    assert sender(parse("--orthanc-host", "pacs", "--ca-file", "ca.pem")) is None


def test_what_it_is_measured_with_is_what_the_options_say(tmp_path, monkeypatch):
    files = setup_files(parse())
    assert (files.model_path, files.rules, files.pseudonymous) == (DEFAULT_MODEL, load_rules(), False)
    (tmp_path / "rules.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    files = setup_files(parse("--model-path", "model.onnx", "--rules", "rules.json", "--pseudonymous"))
    assert (files.model_path, files.rules, files.pseudonymous) == (tmp_path / "model.onnx", (), True)


def test_rules_that_are_none_are_told_before_anything_is_read():
    with pytest.raises(Failure, match="bad-rules"):
        setup_files(parse("--rules", str(Path(__file__))))
