"""The rooms of the house, and who may import whom."""

import ast
from pathlib import Path

import pytest

SECTION = Path(__file__).resolve().parents[1]
SOURCE = SECTION / "src"
MAY_IMPORT = {
    "common": set(),
    "reading": {"common"},
    "choosing": {"common", "reading"},
    "checks": {"common"},
    "measuring": {"common", "checks"},
    "pages": {"common", "checks", "measuring"},
    "objects": {"common", "reading", "measuring", "pages"},
    "archive": {"common", "reading", "choosing"},
    "study": {"common", "reading", "choosing", "checks", "measuring", "pages", "objects"},
    "batches": {"common", "reading", "study"},
    "node": {"common", "reading", "choosing", "study", "batches"},
    "teaching": {"common", "reading", "choosing", "measuring", "archive", "study"},
    "viewer": {"common", "reading", "checks", "measuring", "pages", "archive", "study", "teaching"},
}
SHARED = {"options", "clinic_environment"}  # what the programs have in common
PROGRAMS = {path.stem for path in SOURCE.glob("*.py")} - SHARED


def _imported(path: Path) -> set[str]:
    """The first names of what a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    names |= {"." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_every_folder_with_source_is_a_room():
    assert {path.parent.name for path in SOURCE.glob("*/*.py")} == set(MAY_IMPORT)
    assert not list(SOURCE.glob("*/*/*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_what_its_sentence_says_and_nothing_from_above(room):
    imported = set().union(*(_imported(path) for path in (SOURCE / room).glob("*.py")))
    assert "" not in imported  # all by their full names
    used = imported & (set(MAY_IMPORT) | PROGRAMS | SHARED) - {room}
    assert used <= MAY_IMPORT[room]

    (sentence,) = ast.parse((SOURCE / room / "__init__.py").read_text()).body
    text = sentence.value.value
    assert text.count(".") == 1 and text.endswith(".")
    said = text.removesuffix(".").rpartition("imports ")[2].replace(" and ", ", ").split(", ")
    assert set(said) == (used or {"no room"})


def test_nothing_imports_a_program():
    files = [*SOURCE.glob("*.py"), *SECTION.glob("calibration/*.py"), *SECTION.glob("benchmarks/*.py")]
    assert {"options.py", "fit_quality_limits.py", "geometry.py"} <= {path.name for path in files}
    assert {path.name: found for path in files if (found := _imported(path) & PROGRAMS)} == {}


def test_nothing_imports_another_section():
    others = {path.stem for number in "12" for path in (SECTION.parent / f"section{number}").rglob("*.py")} | {"torch"}
    assert {"curation", "run_ml_pipeline"} <= others
    files = list(SOURCE.rglob("*.py"))
    assert {path.name: found for path in files if (found := _imported(path) & others)} == {}
