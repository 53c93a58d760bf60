"""The benchmark of the whole network, with two studies."""

import re

import pytest

import network

pytestmark = pytest.mark.slow


def test_it_tells_what_two_studies_take_and_leaves_no_process(need_program, capsys):
    for program in ("Orthanc", "storescp", "dcmsend", "getscu", "curl"):
        need_program(program)
    assert network.main(["--alone", "1", "--together", "1"]) == 0
    told = capsys.readouterr().out
    (least,) = re.findall(r"\| least / median / most of 1 \| (\S+) /", told)
    assert 0 < float(least) < 600
    assert re.search(r"How they ended: (1 done, 1 warning|1 warning, 1 done|2 done|2 warning)$", told, re.MULTILINE)
    assert {float(one) > 0 for one in re.findall(r"processor seconds a study, .+ \| (\S+) \|", told)} == {True}
