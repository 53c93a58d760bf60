"""What became of one study: the content of result.json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from choosing.series_rules import rules_sha256
from common.output_files import RESULT
from common.refusal import CODES, SUCCESS, Stop, printable
from common.send_outcome import SendOutcome
from common.verdicts import SeriesVerdict, worst
from measuring.measurement import Measurement
from objects.provenance import REVISION
from reading.dicom_series import Study
from reading.identity import pseudonym
from study.setup import Setup


@dataclass(frozen=True)
class StudyResult:
    """What became of one study; the content of result.json."""

    status: str = SUCCESS  # or "refused": the study cannot give a number; or "failed": we could not
    code: str | None = None
    reason: str | None = None
    again: bool | None = None  # whether trying again can help; None: there is nothing to mend
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    instances_sha256: str | None = None  # of the contents of all instances of the study
    rules_sha256: str | None = None  # of the conditions that chose the series
    limits_sha256: str | None = None  # of the limits that decided whether its volumes may be shown
    revision: str | None = None  # of what the objects are like
    setup_sha256: str | None = None  # of all that it was made with: model, limits, rules, revision, pseudonymous
    volumes_mm3: dict[str, float] | dict[str, dict[str, float]] | None = None  # of a head, by side
    not_shown: dict[str, dict[str, str]] | None = None  # code and reason of the one side that has no number
    intervals_mm3: dict[str, list[float]] | None = None  # low and high; 90 % of true volumes lie within
    pseudonym: str | None = None  # the name on the pages in place of the patient's
    model: dict[str, str] | None = None
    quality_verdict: str | None = None  # the worst of `quality`; None: it did not come to that
    quality: list[dict] = field(default_factory=list)
    files: dict[str, int] | None = None
    series_considered: list[dict] = field(default_factory=list)
    output_dir: str | None = None
    outputs: list[dict] = field(default_factory=list)
    sent: bool | None = None  # confirmed by the archive; None: nobody asked
    stored: bool | None = None  # fetched back and compared; None: nobody asked, or the archive does not allow it
    send_detail: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def begun(cls, setup: Setup) -> StudyResult:
        """Of a study of which nothing is known yet but what it is measured with."""
        return cls(
            model=setup.agent.identity,
            rules_sha256=rules_sha256(setup.rules),
            limits_sha256=setup.limits_sha256,
            revision=REVISION,
            setup_sha256=setup.digest,
        )

    def with_study(self, study: Study, setup: Setup) -> StudyResult:
        return replace(
            self,
            study_instance_uid=study.uid,
            instances_sha256=study.instances_sha256,
            files=study.files_passed_over,
            pseudonym=pseudonym(study.uid) if setup.pseudonymous else None,
        )

    def with_measurement(self, measurement: Measurement) -> StudyResult:
        """With what was found; without volumes where the measurement was refused."""
        checks, accepted = measurement.all_checks, measurement.accepted
        result = replace(
            self,
            series_considered=[_row(one) for one in measurement.series],
            series_instance_uid=accepted.series_instance_uid if accepted else None,
            quality_verdict=worst(checks) if checks else None,
            quality=_quality_rows(measurement),
        )
        if measurement.refusal:
            return result.stopped(measurement.refusal)
        if measurement.is_head:
            shown = {one.side: one.volumes_mm3 for one in measurement.hippocampi if one.volumes_mm3}
            refusals = {one.side: one.refusal for one in measurement.hippocampi if one.refusal}
            reasons = {side: {"code": one.code, "reason": one.reason} for side, one in refusals.items()}
            return replace(result, volumes_mm3=shown, not_shown=reasons or None)
        (hippocampus,) = measurement.hippocampi
        return replace(result, volumes_mm3=hippocampus.volumes_mm3, intervals_mm3=hippocampus.intervals_mm3)

    @property
    def volumes_by_side(self) -> dict[str | None, dict[str, float]]:
        """In mm3 by the key of the structure; of a crop under None, of a head under "left" and "right"."""
        volumes = self.volumes_mm3 or {}
        of_head = any(isinstance(one, dict) for one in volumes.values())
        return volumes if of_head or not volumes else {None: volumes}

    @property
    def outputs_to_send(self) -> list[dict]:
        """The rows of what goes to an archive.

        The page of a refusal does only where a series could have been meant: an archive that routes all its studies
        here shall not get a page for each of them.
        """
        meant = any(row["accepted"] for row in self.series_considered)
        return [row for row in self.outputs if row["sop_instance_uid"]] if meant else []

    def with_sending(self, outcome: SendOutcome) -> StudyResult:
        return replace(self, sent=outcome.sent, stored=outcome.stored, send_detail=outcome.detail)

    def series_table(self) -> str:
        """The verdicts on the series, a line each; what the files say can neither break a line nor stretch it."""
        lines = [("series", "description", "images", "verdict", "decided by", "reason")]
        for row in self.series_considered:
            verdict, decided = ("accepted", "all") if row["accepted"] else ("rejected", row["condition"])
            cells = (row["series_instance_uid"], row["description"], row["instances"], verdict, decided, row["reason"])
            lines.append(tuple(printable(str(cell))[:100] for cell in cells))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def stopped(self, stop: Stop) -> StudyResult:
        """The result without a number, and why."""
        return replace(
            self,
            status=stop.status,
            code=stop.code,
            reason=stop.reason,
            again=CODES[stop.code].again,
            volumes_mm3=None,
            not_shown=None,
            intervals_mm3=None,
            outputs=[],
        )


def _quality_rows(measurement: Measurement) -> list[dict]:
    """All checks as result.json has them; those of one side of a head name it."""
    of_sides = [
        {**asdict(check), **({"side": one.side} if one.side else {})}
        for one in measurement.hippocampi
        for check in one.checks
    ]
    return [asdict(check) for check in measurement.checks] + of_sides


def _row(verdict: SeriesVerdict) -> dict:
    """The verdict on a series as result.json has it."""
    return {
        "series_instance_uid": verdict.series_instance_uid,
        "description": verdict.description,
        "modality": verdict.modality,
        "instances": verdict.instances,
        "accepted": verdict.accepted,
        "condition": verdict.condition,
        "reason": verdict.reason,
    }


def output_rows(folder: Path, uids: dict[str, str | None]) -> list[dict]:
    """The outputs as result.json has them, from their SOP Instance UIDs by file name; None of what is no DICOM."""
    return [{"file": file, "sop_instance_uid": uid, "sha256": sha256_of(folder / file)} for file, uid in uids.items()]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_result(folder: Path) -> StudyResult:
    """The result of an earlier run. Raises OSError, ValueError, TypeError where there is none of this version."""
    return StudyResult(**json.loads((folder / RESULT).read_text()))
