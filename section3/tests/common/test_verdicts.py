"""What the verdicts of several checks make together."""

from common.verdicts import FAIL, PASS, WARN, Check, worst


def test_the_worst_verdict_counts():
    def checks(*verdicts: str) -> list[Check]:
        return [Check("", 0.0, "", "", one, "") for one in verdicts]

    assert worst([]) == PASS
    assert worst(checks(PASS, WARN, PASS)) == WARN
    assert worst(checks(WARN, FAIL, PASS)) == FAIL
