"""Where a package is missing: one line that says which environment has it, and exit code 2, in place of a traceback.

Programs import this before anything that is installed. Nothing of it is called: it stands in sys.excepthook, and so
covers what is imported later on as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
usual_hook = sys.excepthook


def tell_of_missing_package(kind: type[BaseException], error: BaseException, trace: object) -> None:
    if not isinstance(error, ModuleNotFoundError):
        usual_hook(kind, error, trace)
        return
    print(
        f"{sys.executable} lacks {error.name}: run `make .venv/ready` in {ROOT}, then use .venv/bin/python from there",
        file=sys.stderr,
    )
    raise SystemExit(2)


sys.excepthook = tell_of_missing_package
