"""Where the Python is too old or a package is missing: one line that says which environment will do, and exit code 2.

Programs import this before anything that is installed. Nothing of it is called: the version is looked at here, and what
is missing, now or later on, ends in sys.excepthook instead of a traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
# What belongs to the clinic needs little; calibration and benchmarks, which stand beside it, need everything.
NAME = ".venv-clinic" if Path(sys.argv[0]).resolve().parent == SOURCE else ".venv"
WAY_OUT = f"run `make {NAME}/ready` in {SOURCE.parents[1]}, then use {NAME}/bin/python from there"
usual_hook = sys.excepthook


def tell_of_missing_package(kind: type[BaseException], error: BaseException, trace: object) -> None:
    if not isinstance(error, ModuleNotFoundError):
        usual_hook(kind, error, trace)
        return
    print(f"{sys.executable} lacks {error.name}: {WAY_OUT}", file=sys.stderr)
    raise SystemExit(2)


sys.excepthook = tell_of_missing_package

if sys.version_info < (3, 10):  # noqa: UP036  that it starts there is the point
    version = ".".join(map(str, sys.version_info[:2]))
    print(f"{sys.executable} is Python {version}, and 3.10 or newer is needed: {WAY_OUT}", file=sys.stderr)
    raise SystemExit(2)
