"""The compose file as far as it can be checked without Docker: it parses, it is pinned, and it names what is there."""

import re

import pytest

from .conftest import SCRIPTS

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
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
    assert set(compose["services"]) == {"archive", "listener", "node", "viewer", "scanner"}
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}
    assert "NEVER RUN" in "".join(COMPOSE.read_text().splitlines()[:3])


def test_each_piece_is_one_of_our_programs_without_rights(compose):
    for name, service in compose["services"].items():
        assert set(service) <= KNOWN
        assert service["cap_drop"] == ["ALL"] and service["read_only"] and "ports" not in service
        program = next(part for part in service["command"] if re.search(r"\.(sh|py)$", part))
        if name != "node":
            assert (SCRIPTS / program).exists()
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        assert (SCRIPTS / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_every_setting_is_one_of_network_env_and_none_is_left_out(compose):
    settings = re.findall(r"^(HIPPO_\w+)=", (SCRIPTS / "network.env").read_text(), re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+)\}", COMPOSE.read_text())) == set(settings)
    for service in compose["services"].values():
        assert set(service["environment"]) == set(settings)


def test_images_and_packages_are_pinned():
    text = (SCRIPTS / "Dockerfile").read_text()
    images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert images and all(re.search(r":\d+\.\d+\.\d+-", image) for image in images)
    for package in ("orthanc", "orthanc-dicomweb", "dcmtk"):
        assert re.search(rf" {package}=\S+", text)
    (version,) = re.findall(r"OHIF_VERSION=(\S+)", text)
    assert f"\nVERSION={version}\n" in (SCRIPTS / "launch_OHIF.sh").read_text()


def test_what_is_copied_into_the_image_is_there():
    root = SCRIPTS.parents[2]
    copied = re.findall(r"^COPY (?!--from)(\S+) ", (SCRIPTS / "Dockerfile").read_text(), re.MULTILINE)
    assert [path for path in copied if not (root / path).exists()] == []
