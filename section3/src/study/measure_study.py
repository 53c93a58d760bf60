"""One study to everything that is found about it: its crop is measured, or where it has none, the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from common.refusal import Refusal, printable
from common.stopwatch import Stopwatch
from measuring.measure_crop import measure_crop
from measuring.measure_head import measure_head
from measuring.measurement import Measurement
from reading.dicom_series import Series, Study, require_one_content, require_readable
from reading.dicom_volume import (
    SourceVolume,
    load_dicom_volume_as_numpy_from_list,
    load_head,
    volume_to_look_at,
)
from reading.identity import Identity, Nobody
from reading.series_checks import check_series
from reading.series_choice import Choice, choose_series
from reading.series_rules import get_series_for_inference, without_ours
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
    series = None
    try:
        with identity.kept_out_of_stops():
            series = get_series_for_inference(study, choice.verdicts)
            source = _volume_of(study, series, load_dicom_volume_as_numpy_from_list, stopwatch)
    except Refusal as refusal:
        return _without_volume(study, choice, series, refusal)
    hippocampus = measure_crop(source, setup.agent, setup.limits, stopwatch)
    return Measurement(
        header=without_ours(study).header_for(series),
        series=choice.verdicts,
        source=source,
        hippocampi=(hippocampus,),
        checks=check_series(series, source),
        refusal=hippocampus.refusal,
    )


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
    try:
        with identity.kept_out_of_stops():
            source = _volume_of(study, series, load_head, stopwatch)
    except Refusal as refusal:
        return _without_volume(study, choice, series, refusal)
    measurement = Measurement(without_ours(study).header_for(series), choice.verdicts, source)
    checks = check_series(series, source)
    try:
        head = measure_head(source, setup.localiser, setup.agent, stopwatch)
    except Refusal as refusal:
        return replace(measurement, checks=checks, refusal=refusal)
    return replace(measurement, hippocampi=head.hippocampi, checks=(*checks, *head.checks), refusal=head.refusal)


def _volume_of(
    study: Study, series: Series, load: Callable[[Series], SourceVolume], stopwatch: Stopwatch
) -> SourceVolume:
    """Raises Refusal."""
    require_readable(study, series)
    require_one_content(study, series)
    with stopwatch.timed("volume"):
        return load(series)


def _without_volume(study: Study, choice: Choice, series: Series | None, refusal: Refusal) -> Measurement:
    """Refused before there was a volume to measure; what cannot be decoded is not tried again for a picture."""
    readable = series if refusal.code != "unreadable-pixels" else None
    picture = readable and volume_to_look_at(readable)
    return Measurement(without_ours(study).header_for(series), choice.verdicts, picture, refusal=refusal)


def _listed(study: Study, identity: Identity) -> str:
    """The series that --series can name, on one line without the patient."""
    series = without_ours(study).series
    names = (f"{one.uid} ({one.description or 'unnamed'}, {len(one.instances)} images)" for one in series)
    return printable(identity.removed_from(", ".join(names)))[:1000] or "none but those of our results"
