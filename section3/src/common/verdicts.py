"""Verdicts: on a series, whether it is the input; on a measurement, whether it may be shown."""

from collections.abc import Iterable
from dataclasses import dataclass

PASS, WARN, FAIL = "pass", "warn", "fail"
_SEVERITY = (PASS, WARN, FAIL)


@dataclass(frozen=True)
class Check:
    """One answer. `limit`, `source` and `sentence` are for people; `value` is None where nothing could be measured."""

    name: str
    value: float | None
    limit: str
    source: str
    verdict: str  # "pass", "warn" (look twice) or "fail" (the number must not be shown)
    sentence: str


def not_passed(checks: Iterable[Check]) -> list[Check]:
    """Those that warn or forbid."""
    return [check for check in checks if check.verdict != PASS]


def failed(checks: Iterable[Check]) -> list[Check]:
    """Those that forbid to show the number."""
    return [check for check in checks if check.verdict == FAIL]


def worst(checks: Iterable[Check]) -> str:
    """The gravest verdict of all; "pass" where there are none."""
    return max((check.verdict for check in checks), key=_SEVERITY.index, default=PASS)


@dataclass(frozen=True)
class SeriesVerdict:
    """The verdict on one series: `condition` names what decided a rejection and is None for an accepted one.

    ours: whether the series is a result of this product.
    """

    series_instance_uid: str
    description: str
    modality: str
    instances: int
    condition: str | None
    reason: str
    ours: bool = False

    @property
    def accepted(self) -> bool:
        return self.condition is None
