"""The benchmark of the service for viewers, with few images."""

import re

import pytest

import viewers

pytestmark = pytest.mark.slow


def test_it_tells_what_few_crops_take(capsys):
    assert viewers.main(["--images", "6", "--workers", "1", "2"]) == 0
    rows = re.findall(
        r"^\| (\d) \| ([\d.]+) \| (\d+), (\d+) \| (\d+), (\d+) \|$", capsys.readouterr().out, re.MULTILINE
    )
    assert [row[0] for row in rows] == ["1", "2"] and all(float(row[1]) > 0 for row in rows)
    assert all(50 < int(row[4]) < 2000 and int(row[2]) <= int(row[3]) for row in rows)
