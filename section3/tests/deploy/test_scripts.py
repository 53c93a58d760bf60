"""Each script by itself: its help, its errors, its settings."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from .conftest import SCRIPTS

SHELL = sorted(path.name for path in SCRIPTS.glob("*.sh") if path.name != "shared.sh")
PYTHON = ("accept_dicom", "guard_https", "route_again", "serve_viewer")
FOREGROUND = ("launch_orthanc.sh", "launch_OHIF.sh", "start_listener.sh", "make_certificates.sh")


def test_these_are_the_scripts():
    assert set(SHELL) == {*FOREGROUND, "send_volume.sh", "send_result.sh", "hospital.sh", "container.sh"}
    assert all(os.access(SCRIPTS / name, os.X_OK) for name in (*SHELL, *PYTHON))


@pytest.mark.parametrize("name", SHELL)
def test_help_says_what_it_does_and_how_it_ends(network, name):
    for option in ("--help", "-h"):
        done = network.run(name, option)
        assert done.returncode == 0 and done.stderr == ""
        assert done.stdout.startswith(name) and "Exit code 0:" in done.stdout
        assert "pipefail" not in done.stdout and max(map(len, done.stdout.splitlines())) <= 120
    assert not network.folder.exists()


@pytest.mark.parametrize("name", SHELL)
def test_an_unknown_option_is_wrong_use(network, name):
    done = network.run(name, "--wrong")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{name}: there is no option --wrong; --help tells more\n"


@pytest.mark.parametrize("name", FOREGROUND)
def test_an_argument_too_many_is_wrong_use(network, name):
    assert network.run(name, "something").returncode == 2


def test_what_is_to_be_sent_must_be_there(network):
    for script, *arguments in (
        ["send_volume.sh", "/nowhere"],
        ["send_volume.sh", "/", "/"],
        ["send_result.sh"],
        ["send_result.sh", "/nowhere"],
        ["hospital.sh", "/nowhere"],
        ["container.sh", "/nowhere"],
        ["container.sh"],
    ):
        done = network.run(script, *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("HIPPO_NODE_PORT", "0"),
        ("HIPPO_VIEWER_PORT", "http"),
        ("HIPPO_ARCHIVE_HTTP_PORT", "70000"),
        ("HIPPO_NODE_AET", "MUCHTOOLONGFORATITLE"),
        ("HIPPO_ARCHIVE_AET", 'A"B'),
        ("HIPPO_TLS", "yes"),
        ("HIPPO_ACCOUNT", "nobody"),
        ("HIPPO_ACCOUNT", 'a:b"c'),
    ],
)
def test_a_wrong_setting_is_told(network, setting, value):
    done = network.run("start_listener.sh", **{setting: value})
    assert done.returncode == 2 and setting in done.stderr


def test_a_site_that_is_not_there_is_told(network):
    done = network.run("start_listener.sh", HIPPO_SITE="nowhere.env")
    assert done.returncode == 1 and "HIPPO_SITE" in done.stderr


@pytest.mark.parametrize(
    ("script", "program"),
    [
        ("launch_orthanc.sh", "Orthanc"),
        ("start_listener.sh", "storescp"),
        ("send_volume.sh", "dcmdump"),
        ("make_certificates.sh", "openssl"),
        ("launch_OHIF.sh", "npm"),
    ],
)
def test_a_program_that_is_missing_is_named_with_its_package(network, tmp_path, script, program):
    for name in ("bash", "env", "dirname", "basename", "sed", "mkdir", "mktemp", "rm", "curl", "python3", "openssl"):
        if name != program and shutil.which(name):
            (tmp_path / name).symlink_to(shutil.which(name))
    done = network.run(script, PATH=str(tmp_path))
    assert done.returncode == 1
    assert f"{program} is not installed; on Debian: apt-get install" in done.stderr, done.stderr


def test_hospital_says_what_to_install_where_it_may_not(network, tmp_path):
    for name in ("bash", "env", "dirname", "basename", "sed", "find", "python3"):
        (tmp_path / name).symlink_to(shutil.which(name))
    (tmp_path / "id").write_text("#!/bin/bash\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    done = network.run("hospital.sh", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends orthanc" in done.stderr and "dcmtk" in done.stderr


@pytest.mark.parametrize("script", ["launch_orthanc.sh", "start_listener.sh", "launch_OHIF.sh"])
@pytest.mark.usefixtures("need_network")
def test_a_port_that_is_taken_is_told(network, script):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {f"HIPPO_{name}_PORT": port for name in ("ARCHIVE_HTTP", "NODE", "VIEWER")}
        done = network.run(script, **ports)
    assert done.returncode == 1 and f"somebody already listens on port {port}" in done.stderr


@pytest.mark.usefixtures("need_network")
def test_nothing_is_opened_to_other_machines_without_tls_and_an_account(network):
    for settings in ({}, {"HIPPO_ACCOUNT": "a:b"}):
        done = network.run("launch_orthanc.sh", HIPPO_REMOTE="true", **settings)
        assert done.returncode == 1 and "HIPPO_REMOTE" in done.stderr


@pytest.mark.usefixtures("need_network")
def test_where_no_archive_is_nothing_is_sent(network, small_study):
    done = network.run("send_volume.sh", small_study)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the archive confirmed 0 of" in done.stderr


def test_the_defaults_are_those_of_the_specification():
    names = ("ADDRESS", "ARCHIVE_AET", "ARCHIVE_DICOM_PORT", "ARCHIVE_HTTP_PORT", "NODE_AET", "VIEWER_PORT", "ACCOUNT")
    command = f'set -a; . "{SCRIPTS}/network.env"; echo {" ".join(f"${{HIPPO_{name}}}" for name in names)}'
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-c", command], env=clean, capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["127.0.0.1", "ORTHANC", "4242", "8042", "HIPPOAI", "3000"]


def test_shellcheck_finds_nothing(need_program):
    need_program("shellcheck")
    done = subprocess.run(["shellcheck", "-x", *SHELL, "shared.sh"], cwd=SCRIPTS, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout.decode()


def test_ruff_finds_nothing_in_programs_without_an_ending():
    """It looks at files by their ending unless they are named."""
    pytest.importorskip("ruff")
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *PYTHON], cwd=SCRIPTS, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout
