"""Which series of a study is the input, and why.

The rules are data, a JSON list of conditions (hippocrop_rules.json for crops, head_rules.json for heads):

name        what the condition is called where it decides
attribute   a DICOM keyword, or `slices`: how many slices the series has
test        is: one of the values; has: one of the values of the attribute; has-none: none of them; no-word: no such
            word in the text; at-least, at-most: numbers; at-most-if-given: numbers, or nothing
values      what is compared, without regard to case and spaces
expected    the same in words, where the values do not speak for themselves
only        an attribute and a value: the condition is asked only where the attribute has that value

They must hold for every instance; the first one that does not is the reason given for a rejection.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from choosing.acquisition import acquisition_text
from common.product import PRODUCT
from common.refusal import Failure, Refusal
from common.verdicts import SeriesVerdict
from reading.dicom_file import Instance
from reading.dicom_series import Series, Study

DEFAULT_RULES = Path(__file__).resolve().parents[1] / "hippocrop_rules.json"
DEFAULT_HEAD_RULES = DEFAULT_RULES.with_name("head_rules.json")


@dataclass(frozen=True)
class Condition:
    """One requirement on the input series; the columns of a rule file."""

    name: str
    attribute: str
    test: str
    values: tuple[str | int, ...]
    expected: str = ""
    only: tuple[str, str] | None = None

    def is_met(self, text: str) -> bool:
        return TESTS[self.test](text, self.values)

    def is_asked(self, instance: Instance) -> bool:
        return self.only is None or _has(acquisition_text(instance, self.only[0]), self.only[1:])

    def rejection(self, text: str) -> str:
        return f"{self.attribute} is '{text}', expected {self.expected or ' or '.join(map(str, self.values))}"


def _squeezed(text: object) -> str:
    return "".join(str(text).split()).casefold()


def _is(text: str, values: Sequence) -> bool:
    return _squeezed(text) in map(_squeezed, values)


def _has(text: str, values: Sequence) -> bool:
    return any(_is(part, values) for part in text.split("\\"))


def _has_none(text: str, values: Sequence) -> bool:
    return not _has(text, values)


def _no_word(text: str, values: Sequence) -> bool:
    words = {word.casefold() for word in re.split(r"[^0-9A-Za-z+]+", text)}
    return not any(value.casefold() in words for value in values)


def _at_least(text: str, values: Sequence) -> bool:
    return text.isdecimal() and int(text) >= values[0]


def _at_most(text: str, values: Sequence) -> bool:
    try:
        return all(float(part) <= values[0] for part in text.split("\\"))
    except ValueError:  # no number
        return False


def _at_most_if_given(text: str, values: Sequence) -> bool:
    return not text or _at_most(text, values)


TESTS: dict[str, Callable[[str, Sequence], bool]] = {
    "is": _is,
    "has": _has,
    "has-none": _has_none,
    "no-word": _no_word,
    "at-least": _at_least,
    "at-most": _at_most,
    "at-most-if-given": _at_most_if_given,
}


def is_ours(series: Series) -> bool:
    """Whether it is a result of this product: every SeriesDescription that is written here starts with its name."""
    return any(_squeezed(one.text("SeriesDescription")).startswith(_squeezed(PRODUCT)) for one in series.instances)


def without_ours(study: Study) -> Study:
    """The study as it was before our results joined it: what is written must not depend on what was written before."""
    return replace(study, series=[series for series in study.series if not is_ours(series)])


def load_rules(path: Path = DEFAULT_RULES) -> tuple[Condition, ...]:
    """The conditions of a rule file. Raises Failure: bad-rules."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, list):
            raise TypeError("not a list")
        if not all(isinstance(rule["values"], list) for rule in content):
            raise TypeError("values is not a list")
        rules = tuple(_condition(rule) for rule in content)
    except OSError as error:
        raise Failure("bad-rules", f"rules {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise Failure("bad-rules", f"{path} is no list of conditions: {type(error).__name__}, {error}") from error
    return rules


def _condition(rule: dict) -> Condition:
    only = rule.get("only")
    if only is not None and not (isinstance(only, list) and len(only) == 2 and all(isinstance(o, str) for o in only)):
        raise TypeError("only is not an attribute and a value")
    condition = Condition(**{**rule, "values": tuple(rule["values"]), "only": only and tuple(only)})
    condition.is_met("1")
    return condition


def rules_sha256(rules: Sequence[Condition]) -> str:
    """A digest of the conditions for the input: other ones may choose another series."""
    return hashlib.sha256(repr(tuple(rules)).encode()).hexdigest()


def consider_series(study: Study, rules: Iterable[Condition], series_uid: str | None = None) -> list[SeriesVerdict]:
    """The verdict on every series of the study; `series_uid`, where given, is one more condition.

    No site's rules can make a result of ours the input.
    """
    conditions = list(rules)
    if series_uid is not None:
        conditions.append(Condition("chosen", "SeriesInstanceUID", "is", (series_uid,)))
    return [_consider(series, conditions) for series in study.series]


def _consider(series: Series, conditions: Iterable[Condition]) -> SeriesVerdict:
    about = (series.uid, series.description, series.modality, len(series.instances))
    if is_ours(series):
        reason = f"SeriesDescription is '{series.description[:200]}', expected not {PRODUCT}"
        return SeriesVerdict(*about, "not-our-result", reason, ours=True)
    for condition in conditions:
        for instance in filter(condition.is_asked, series.instances):
            slices = condition.attribute == "slices"
            text = str(series.slices) if slices else acquisition_text(instance, condition.attribute)
            if not condition.is_met(text):
                return SeriesVerdict(*about, condition.name, condition.rejection(text[:200]))
    return SeriesVerdict(*about, None, "meets all conditions")


def get_series_for_inference(study: Study, verdicts: Iterable[SeriesVerdict]) -> Series:
    """The one accepted series. Raises Refusal: no-hippocrop-series, several-hippocrop-series."""
    verdicts = [one for one in verdicts if not one.ours]
    accepted = [one.series_instance_uid for one in verdicts if one.accepted]
    if not accepted:
        rejections = "; ".join(f"{one.description or 'unnamed'}: {one.reason}" for one in verdicts)
        raise Refusal("no-hippocrop-series", f"none of {len(verdicts)} series can be the input ({rejections})")
    if len(accepted) > 1:
        uids = ", ".join(accepted)
        raise Refusal("several-hippocrop-series", f"{len(accepted)} HippoCrop series, choose one with --series: {uids}")
    return study.series_of(accepted[0])
