"""Files that are there whole, or not at all."""

import json
from pathlib import Path


def write_json(path: Path, content: dict) -> None:
    """Write `content` whole or not at all. Raises OSError."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` under a temporary name and move it into place. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
