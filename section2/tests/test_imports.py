"""Imports run one way: the pipeline never needs what was done once to find out, and no program another."""

import ast
from pathlib import Path

SECTION = Path(__file__).resolve().parents[1]
PIPELINE, ANALYSES = ({path.stem: path for path in (SECTION / name).glob("*.py")} for name in ("src", "analyses"))


def imported(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def is_program(path: Path) -> bool:
    return 'if __name__ == "__main__":' in path.read_text()


def test_the_pipeline_never_imports_an_analysis():
    assert ANALYSES and not PIPELINE.keys() & ANALYSES.keys()
    found = {name: imported(path) & ANALYSES.keys() for name, path in PIPELINE.items()}
    assert not any(found.values()), found


def test_no_program_imports_a_program():
    modules = PIPELINE | ANALYSES
    programs = {name for name, path in modules.items() if is_program(path)}
    assert {"run_ml_pipeline", "predict", "studies"} <= programs
    found = {name: imported(path) & programs for name, path in modules.items()}
    assert not any(found.values()), found
