"""What the READMEs promise about their own form, and that they leave out no code."""

import re
from pathlib import Path

import pytest

from common.refusal import CODES

REPOSITORY = Path(__file__).resolve().parents[2]
READMES = ("README.md", "section2/README.md", "section3/README.md")


@pytest.mark.parametrize("name", READMES)
def test_lines_and_cells_are_short(name):
    lines = (REPOSITORY / name).read_text().splitlines()
    assert [line for line in lines if len(line) > 140] == []
    assert [cell for line in lines if line.startswith("|") for cell in line.split("|") if len(cell) > 200] == []


def test_the_first_readme_is_read_in_five_minutes():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 90


@pytest.mark.parametrize("name", READMES)
def test_links_lead_to_files(name):
    links = re.findall(r"\]\(([^)#]+)\)", (REPOSITORY / name).read_text())
    assert links
    missing = [link for link in links if not link.startswith("http")]
    assert [link for link in missing if not (REPOSITORY / name).parent.joinpath(link).exists()] == []


def test_the_table_of_codes_is_whole_and_says_whose_fault():
    text = (REPOSITORY / "section3" / "README.md").read_text()
    told = {}
    for row in re.findall(r"^\| ((?:refused|failed).*)$", text, re.MULTILINE):
        status, codes = row.split("|")[:2]
        told.update(
            {code: (status.split()[0].strip(":,"), "again" in status) for code in re.findall(r"`(.+?)`", codes)}
        )
    assert told == {code.name: (code.status, code.again) for code in CODES.values()}
