"""What of a study is measured: its crop around a hippocampus, else its best T1-weighted images of a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from choosing.acquisition import acquisition_text
from choosing.series_rules import Condition, consider_series, get_series_for_inference
from common.verdicts import SeriesVerdict
from reading.dicom_series import Series, Study

MOST_HEADS = 3  # series of one study that are tried


@dataclass(frozen=True)
class Choice:
    """verdicts: on every series. heads: those that may be the input, the best first; none where there is a crop."""

    verdicts: tuple[SeriesVerdict, ...]
    heads: tuple[Series, ...] = ()

    def series(self, study: Study) -> list[Series]:
        """What is needed to measure the study. Raises Refusal: no-hippocrop-series, several-hippocrop-series."""
        return list(self.heads) or [get_series_for_inference(study, self.verdicts)]

    def taking(self, taken: Series, refused: dict[str, str]) -> Choice:
        """The same once one head is taken. refused: why those that were tried before it were not, by their UID."""
        return replace(self, verdicts=tuple(_unless_taken(one, taken, refused) for one in self.verdicts))


def choose_series(
    study: Study, rules: Sequence[Condition], head_rules: Sequence[Condition], series_uid: str | None = None
) -> Choice:
    """Crops by `rules`; where there is none, heads by `head_rules`. `series_uid`: one more condition for both."""
    crops = consider_series(study, rules, series_uid)
    if not head_rules or any(one.accepted for one in crops):
        return Choice(tuple(crops))
    heads = consider_series(study, head_rules, series_uid)
    accepted = [study.series_of(one.series_instance_uid) for one in heads if one.accepted]
    if accepted:
        return Choice(tuple(heads), tuple(sorted(accepted, key=_rank)[:MOST_HEADS]))
    reached = [[*(condition.name for condition in conditions), "chosen"] for conditions in (rules, head_rules)]
    return Choice(tuple(_farther(*pair, *reached) for pair in zip(crops, heads, strict=True)))


def _farther(
    crop: SeriesVerdict, head: SeriesVerdict, crop_conditions: list[str], head_conditions: list[str]
) -> SeriesVerdict:
    """Of the two reasons against a series, that of what it is more nearly: it met more conditions."""
    if crop.ours:
        return crop
    return crop if crop_conditions.index(crop.condition) > head_conditions.index(head.condition) else head


def _rank(series: Series) -> tuple:
    """Before others goes what is original, a gradient echo, fine, and evened out; the UID breaks a tie."""
    first = series.instances[0]
    kinds = first.text("ImageType").split("\\")
    sides = [acquisition_text(first, "PixelSpacing"), _between_slices(series)]
    try:
        widest = max(float(side) for text in sides for side in text.split("\\"))
    except ValueError:
        widest = float("inf")
    gradient = "GR" in acquisition_text(first, "ScanningSequence").split("\\")
    return "ORIGINAL" not in kinds, not gradient, round(widest, 1), "NORM" not in kinds, series.uid


def _between_slices(series: Series) -> str:
    first = series.instances[0]
    return acquisition_text(first, "SpacingBetweenSlices") or acquisition_text(first, "SliceThickness")


def _unless_taken(verdict: SeriesVerdict, taken: Series, refused: dict[str, str]) -> SeriesVerdict:
    uid = verdict.series_instance_uid
    if not verdict.accepted or uid == taken.uid:
        return verdict
    if uid in refused:
        return replace(verdict, condition="images", reason=f"meets all conditions, and is refused: {refused[uid]}")
    return replace(verdict, condition="best", reason=f"meets all conditions, but {taken.uid} goes before it")
