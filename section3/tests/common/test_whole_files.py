"""Files that are there whole, or not at all."""

import multiprocessing
from pathlib import Path

import pytest

from common.whole_files import write_text


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "folder" / "file"
    write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def _write_again_and_again(path: Path, letter: str) -> None:
    for _ in range(300):
        write_text(path, letter * 100_000, shared=True)


def test_several_programs_may_write_one_file(tmp_path):
    path = tmp_path / "file"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_again_and_again, args=(path, letter)) for letter in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(600)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    text = path.read_text()
    assert text == text[0] * 100_000
    assert list(tmp_path.iterdir()) == [path]
