"""Files that are there whole, or not at all."""

import json
import os
from pathlib import Path


def write_json(path: Path, content: dict, shared: bool = False) -> None:
    """Write `content` whole or not at all; see write_text. Raises OSError."""
    write_text(path, json.dumps(content, indent=2) + "\n", shared)


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """Write `text` whole or not at all, into a folder that is made if need be; see write_bytes. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode(), shared)


def write_bytes(path: Path, content: bytes | memoryview, shared: bool = False) -> None:
    """Write `content` under a temporary name and move it into place. Raises OSError.

    shared: other programs may write the same file now, so that the temporary name must not be theirs.
    """
    temporary = path.with_name(f".{path.name}.unfinished{f'-{os.getpid()}' if shared else ''}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
