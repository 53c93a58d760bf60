"""The compose file as far as it can be checked without Docker: it parses, it is pinned, and it names what is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SCRIPTS

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
DOCKERFILES = (SCRIPTS / "Dockerfile", SCRIPTS / "clinic.Dockerfile")
COMPOSE = SCRIPTS / "docker-compose.yml"
# What the compose specification knows of a service, as far as we use it.
KNOWN = {
    *("build", "image", "command", "working_dir", "environment", "volumes", "tmpfs", "init", "restart", "profiles"),
    *("network_mode", "read_only", "cap_drop", "security_opt", "stop_grace_period", "healthcheck", "depends_on"),
}


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load(COMPOSE.read_text())


def test_it_has_the_five_pieces_and_says_that_it_never_ran(compose):
    assert set(compose["services"]) == {"archive", "listener", "node", "viewer", "viewers", "scanner"}
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    assert "NEVER RUN" in "".join(COMPOSE.read_text().splitlines()[:3])


def test_each_piece_is_one_of_our_programs_without_rights(compose):
    for name, service in compose["services"].items():
        assert set(service) <= KNOWN
        assert service["cap_drop"] == ["ALL"] and service["read_only"] and "ports" not in service
        program = next(part for part in service["command"] if re.search(r"\.(sh|py)$", part))
        folder = SCRIPTS.parent if name in ("node", "viewers") else SCRIPTS
        assert (folder / Path(program).name).exists()
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        assert (SCRIPTS / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_every_setting_is_one_of_network_env_and_none_is_left_out(compose):
    settings = re.findall(r"^(HIPPO_\w+)=", (SCRIPTS / "network.env").read_text(), re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+)\}", COMPOSE.read_text())) == set(settings)
    for service in compose["services"].values():
        assert set(service["environment"]) == set(settings)


def test_images_and_packages_are_pinned():
    clinic = (SCRIPTS / "clinic.Dockerfile").read_text()
    assert all(re.search(rf" {package}=\S+", clinic) for package in ("python3", "python3-venv", "dcmtk"))
    text = (SCRIPTS / "Dockerfile").read_text()
    images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert images and all(re.search(r":\d+\.\d+\.\d+-", image) for image in images)
    for package in ("orthanc", "orthanc-dicomweb", "dcmtk"):
        assert re.search(rf" {package}=\S+", text)
    (version,) = re.findall(r"OHIF_VERSION=(\S+)", text)
    assert f"\nVERSION={version}\n" in (SCRIPTS / "launch_OHIF.sh").read_text()


def test_what_is_copied_into_the_image_is_there():
    root = SCRIPTS.parents[2]
    for file in DOCKERFILES:
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", file.read_text(), re.MULTILINE)
        paths = " ".join(copied).split()
        assert paths and [path for path in paths if not (root / path).exists()] == []


def test_both_images_are_for_a_user_without_rights():
    for file in DOCKERFILES:
        assert re.findall(r"^USER (\S+)", file.read_text(), re.MULTILINE)[-1] == "10001"


def run_tool(name: str, *options: object) -> subprocess.CompletedProcess:
    """A tool that was installed beside this Python."""
    tool = Path(sys.executable).with_name(name)
    if not tool.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed (requirements.txt)")
    return subprocess.run([tool, *map(str, options)], capture_output=True, text=True, cwd=SCRIPTS)


def test_the_linter_of_dockerfiles_has_nothing_to_say():
    done = run_tool("hadolint", *DOCKERFILES)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_what_compose_itself_reads():
    done = run_tool("docker-compose", "--env-file", "network.env", "--file", COMPOSE, "config", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    services = run_tool("docker-compose", "--env-file", "network.env", "--file", COMPOSE, "config", "--services")
    assert "viewers" in services.stdout.split()
