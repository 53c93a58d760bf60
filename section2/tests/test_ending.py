import pytest

from ending import told
from nifti import DataError


def _fails(error: BaseException):
    def work():
        raise error

    return work


def test_what_goes_well_says_nothing(capsys):
    assert told(lambda: None) == 0 and told(lambda: 1) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (DataError("a file: no image"), 1, "a file: no image\n"),
        (OSError("the disk is full"), 1, "the disk is full\n"),
        (KeyboardInterrupt(), 130, "\nstopped; go on\n"),
    ],
)
def test_a_failure_is_one_line_and_a_code(capsys, error, code, says):
    assert told(_fails(error), "stopped; go on") == code
    assert capsys.readouterr() == ("", says)


def test_a_mistake_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        told(_fails(ZeroDivisionError()))
