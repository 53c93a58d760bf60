"""The page that says which file does what: complete, true in its lengths, and easy to read as those beside it are."""

import re
from pathlib import Path

import pytest

SECTION = Path(__file__).resolve().parents[1]
LINES = (SECTION / "README.md").read_text().splitlines()


def test_every_file_is_listed_with_its_length():
    listed = {name: int(count) for line in LINES for name, count in re.findall(r"^\| `(\w+\.py)` \| (\d+) \|", line)}
    true = {path.name: len(path.read_text().splitlines()) for path in (SECTION / "src").glob("*.py")}
    assert listed.keys() == true.keys()
    assert {name: count for name, count in listed.items() if abs(count - true[name]) > 10} == {}


def test_every_analysis_and_recipe_is_named():
    named = set(re.findall(r"`([\w.]+\.(?:py|json))\b", "\n".join(LINES)))
    for folder, kind in (("analyses", "*.py"), ("recipes", "*.json")):
        assert {path.name for path in (SECTION / folder).glob(kind)} <= named


@pytest.mark.parametrize("page", ["README.md", "out/README.md", "out/for_clinicians.md"])
def test_no_line_is_too_long(page):
    assert max(map(len, (SECTION / page).read_text().splitlines())) <= 140
