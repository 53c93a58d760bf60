"""One study to everything that is found about it: its crop is measured, or where it has none, the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from choosing.series_checks import check_series
from choosing.series_choice import Choice, choose_series
from choosing.series_rules import get_series_for_inference, without_ours
from common.refusal import Refusal, printable
from common.stopwatch import Stopwatch
from measuring.measure_crop import measure_crop
from measuring.measure_head import with_head
from measuring.measurement import Measurement
from reading.dicom_series import Series, Study, require_one_content, require_readable
from reading.dicom_volume import (
    SourceVolume,
    load_dicom_volume_as_numpy_from_list,
    load_head,
    volume_to_look_at,
)
from reading.identity import Identity, Nobody
from study.setup import Setup


class NoSuchSeriesError(Exception):
    """The series that was asked for is not in the study. The message, a line, names those that are."""


def measure_study(study: Study, setup: Setup, stopwatch: Stopwatch, series_uid: str | None = None) -> Measurement:
    """Choose the series, segment and measure it. Raises NoSuchSeriesError, Failure."""
    identity = (Nobody if setup.pseudonymous else Identity).of(study)
    if series_uid is not None and study.series_of(series_uid) is None:
        damaged = f" ({len(study.damaged)} damaged files left out)" if study.damaged else ""
        raise NoSuchSeriesError(f"no series {series_uid} in the study{damaged}, which has: {_listed(study, identity)}")
    choice = choose_series(study, setup.rules, setup.head_rules, series_uid)
    measure = _measure_heads if choice.heads else _measure_crop
    measurement = measure(study, choice, setup, identity, stopwatch)
    shown = tuple(identity.removed_from_verdict(one) for one in measurement.series)
    return replace(measurement, series=shown)


def _measure_crop(study: Study, choice: Choice, setup: Setup, identity: Identity, stopwatch: Stopwatch) -> Measurement:
    try:
        with identity.kept_out_of_stops():
            series = get_series_for_inference(study, choice.verdicts)
    except Refusal as refusal:
        return Measurement(without_ours(study).header_for(None), choice.verdicts, refusal=refusal)
    begun = _begun(study, choice, series, load_dicom_volume_as_numpy_from_list, identity, stopwatch)
    if begun.refusal:
        return begun
    hippocampus = measure_crop(begun.source, setup.agent, setup.limits, stopwatch)
    return replace(begun, hippocampi=(hippocampus,), refusal=hippocampus.refusal)


def _measure_heads(study: Study, choice: Choice, setup: Setup, identity: Identity, stopwatch: Stopwatch) -> Measurement:
    """The first of the heads that gives a number; where none does, the first one with its refusal."""
    first, refused = None, {}
    for series in choice.heads:
        found = _measure_head(study, choice, series, setup, identity, stopwatch)
        if not found.refusal:
            return replace(found, series=choice.taking(series, refused).verdicts)
        refused[series.uid] = found.refusal.reason
        first = first or found
    return replace(first, series=choice.taking(choice.heads[0], refused).verdicts)


def _measure_head(
    study: Study, choice: Choice, series: Series, setup: Setup, identity: Identity, stopwatch: Stopwatch
) -> Measurement:
    begun = _begun(study, choice, series, load_head, identity, stopwatch)
    return begun if begun.refusal else with_head(begun, setup.localiser, setup.agent, stopwatch)[0]


def _begun(
    study: Study,
    choice: Choice,
    series: Series,
    load: Callable[[Series], SourceVolume],
    identity: Identity,
    stopwatch: Stopwatch,
) -> Measurement:
    """With the volume of the series, or refused before there is one to measure."""
    begun = Measurement(without_ours(study).header_for(series), choice.verdicts)
    try:
        with identity.kept_out_of_stops():
            require_readable(study, series)
            require_one_content(study, series)
            with stopwatch.timed("volume"):
                source = load(series)
    except Refusal as refusal:
        # What cannot be decoded is not tried again.
        picture = volume_to_look_at(series) if refusal.code != "unreadable-pixels" else None
        return replace(begun, source=picture, refusal=refusal)
    return replace(begun, source=source, checks=check_series(series, source))


def _listed(study: Study, identity: Identity) -> str:
    """The series that --series can name, on one line without the patient."""
    series = without_ours(study).series
    names = (f"{one.uid} ({one.description or 'unnamed'}, {len(one.instances)} images)" for one in series)
    return printable(identity.removed_from(", ".join(names)))[:1000] or "none but those of our results"
