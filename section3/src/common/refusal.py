"""How section 3 says that there is no number: whose fault it is, a code that stays the same, and a reason.

A refusal is a result: the study cannot give a number, and never will. A failure is ours: we could not, this time.
The code is for programs, the reason, one line, for people. It names files, attributes and UIDs, never a patient.
"""

from dataclasses import dataclass

SUCCESS, REFUSED, FAILED = "success", "refused", "failed"  # what becomes of a study


@dataclass(frozen=True)
class Code:
    """A reason to give no number.

    name: stays the same from version to version. status: whose fault it is. advice: what to do next. again: whether
    trying again can help.
    """

    name: str
    status: str
    meaning: str
    advice: str
    again: bool = False


CODES = {
    code.name: code
    for code in (
        Code(
            "no-dicom",
            REFUSED,
            "the folder holds no DICOM image",
            "Name the folder that holds the DICOM files of the study.",
        ),
        Code(
            "unreadable-dicom",
            REFUSED,
            "DICOM files are damaged, and one of them may be a slice of the input",
            "Send the study again from where it came.",
        ),
        Code(
            "several-studies",
            REFUSED,
            "the files belong to more than one study",
            "Name the folder of one study, or work on all of them as a batch.",
        ),
        Code(
            "several-patients",
            REFUSED,
            "the files of the study name more than one PatientID",
            "Find out in the archive whose images these are.",
        ),
        Code(
            "no-hippocrop-series",
            REFUSED,
            "no series of the study meets the conditions for the input",
            "Add a 3D T1-weighted series of the whole head without contrast agent, or name other rules.",
        ),
        Code(
            "several-hippocrop-series",
            REFUSED,
            "more than one series meets them",
            "Choose one series, or measure each of them.",
        ),
        Code(
            "slices-missing",
            REFUSED,
            "an image of many frames does not say of each of them where it lies",
            "Send the series again, whole.",
        ),
        Code(
            "too-few-slices",
            REFUSED,
            "the series has fewer slices than a volume needs",
            "Send the series again, whole.",
        ),
        Code(
            "instance-conflict",
            REFUSED,
            "one SOP Instance UID of the input stands for two different slices",
            "Find out which of the two files is right, and take the other away.",
        ),
        Code(
            "geometry-missing",
            REFUSED,
            "an attribute that places a slice in space is absent or unusable",
            "Make the crop anew from the original series, with all its headers.",
        ),
        Code(
            "geometry-mixed-size",
            REFUSED,
            "slices differ in rows or columns",
            "Make the crop anew: all slices from one volume.",
        ),
        Code(
            "geometry-mixed-spacing",
            REFUSED,
            "slices differ in pixel spacing",
            "Make the crop anew: all slices from one volume.",
        ),
        Code(
            "geometry-mixed-orientation",
            REFUSED,
            "slices differ in orientation",
            "Make the crop anew: all slices from one volume.",
        ),
        Code(
            "geometry-mixed-frame",
            REFUSED,
            "slices differ in frame of reference",
            "Make the crop anew: all slices from one volume.",
        ),
        Code(
            "geometry-gantry-tilt",
            REFUSED,
            "the slices are shifted against each other in their own plane",
            "Make the crop from a series without gantry tilt.",
        ),
        Code(
            "geometry-duplicate-position",
            REFUSED,
            "two slices lie at the same position",
            "Make the crop anew: one slice at each position.",
        ),
        Code(
            "geometry-conflict",
            REFUSED,
            "the header says twice where the voxels lie, and not the same",
            "Find out which of the two is right, and write the image with that one alone.",
        ),
        Code("geometry-gap", REFUSED, "a slice is missing between two others", "Send the series again, whole."),
        Code(
            "geometry-uneven",
            REFUSED,
            "the steps between slices differ",
            "Make the crop from a volume whose slices are evenly spaced.",
        ),
        Code(
            "geometry-spacing",
            REFUSED,
            "the voxels are smaller or larger than what can be resampled faithfully",
            "Make the crop from a series of about 1 mm.",
        ),
        Code(
            "geometry-field-of-view",
            REFUSED,
            "the series covers more than any crop does",
            "Cut a crop around one hippocampus, about 35 x 50 x 36 mm.",
        ),
        Code(
            "unreadable-pixels",
            REFUSED,
            "the pixel data of a slice cannot be decoded to one grey value a pixel",
            "Send the series again, or without compression.",
        ),
        Code(
            "unfit-input",
            REFUSED,
            "the series is no crop of a T1 hippocampus as the model knows them",
            "Check the series: a T1-weighted crop around one hippocampus, turned as the archive wrote it.",
        ),
        Code(
            "nothing-found",
            REFUSED,
            "the model finds no voxel of one of the structures",
            "Check that the crop shows a hippocampus.",
        ),
        Code(
            "structure-cut",
            REFUSED,
            "what the model finds comes too near to the crop's edge",
            "Cut the crop wider, so that all of the hippocampus lies within it.",
        ),
        Code(
            "implausible-result",
            REFUSED,
            "what the model finds is no hippocampus as it knows them",
            "Trace this hippocampus by hand: it may be unlike those that the model knows.",
        ),
        Code(
            "too-little-to-learn",
            REFUSED,
            "there is nothing to train on, or nothing to train with (viewers only)",
            "Correct more images, of other persons.",
        ),
        Code(
            "bad-rules",
            FAILED,
            "the rules for choosing the series are missing or no list of conditions",
            "Mend the rule file.",
        ),
        Code(
            "bad-model",
            FAILED,
            "the model or its limits are missing, are none, or are not those of the batch",
            "Put model.onnx and its limits back as they were shipped.",
        ),
        Code(
            "cannot-read",
            FAILED,
            "a file or folder of the study cannot be read",
            "See that the files are there and may be read, then try again.",
            again=True,
        ),
        Code(
            "study-changed",
            FAILED,
            "files of the study changed while it was read",
            "Wait until the study has arrived, then try again.",
            again=True,
        ),
        Code(
            "out-of-memory",
            FAILED,
            "there is not enough memory for the study",
            "Let other work end, then try again.",
            again=True,
        ),
        Code(
            "helper-failed",
            FAILED,
            "a program that decodes pixels is missing, was killed, or hangs",
            "Install DCMTK, or let other work end, then try again.",
            again=True,
        ),
        Code(
            "cannot-fetch",
            FAILED,
            "the archive does not give the study",
            "See that the archive answers, then try again.",
            again=True,
        ),
        Code(
            "not-stored",
            FAILED,
            "the archive does not hold the results as they were sent",
            "See the archive's own log, then try again.",
            again=True,
        ),
        Code(
            "verification-failed",
            FAILED,
            "what was written, read back, is not what was measured",
            "Report this fault of ours.",
        ),
        Code(
            "cannot-write",
            FAILED,
            "the results cannot be written to the output folder",
            "See that there is room and that files may be written there, then try again.",
            again=True,
        ),
        Code(
            "interrupted",
            FAILED,
            "the run was killed while it replaced the results of an earlier one",
            "Try again.",
            again=True,
        ),
        Code(
            "worker-died",
            FAILED,
            "the process that worked on the study was killed, twice (batch only)",
            "Let other work end, then try again.",
            again=True,
        ),
        Code(
            "timed-out",
            FAILED,
            "the study was not done within the time allowed (batch only)",
            "Let other work end, then try again.",
            again=True,
        ),
        Code(
            "no-scheduler",
            FAILED,
            "no Dask cluster fit for work answers at the address (batch only)",
            "Start the cluster, then try again.",
            again=True,
        ),
        Code("internal-error", FAILED, "a fault of this program", "Report this fault of ours."),
    )
}


def printable(text: str) -> str:
    """`text` as one line that moves no terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class Stop(Exception):
    """There is no number. code: one of CODES. reason: what was found and what was expected.

    The reason is made one printable line here, as it may quote what stands in a file.
    """

    status: str

    def __init__(self, code: str, reason: str):
        super().__init__(code, reason)
        if CODES[code].status != self.status:
            raise ValueError(f"{code} is no code of what is {self.status}")
        self.code = code
        self.reason = printable(reason)[:1000]

    def __str__(self) -> str:
        return f"{self.reason} [{self.code}]"


class Refusal(Stop):
    """The study cannot give a number: final."""

    status = REFUSED


class Failure(Stop):
    """We could not, though the study may well have one."""

    status = FAILED
