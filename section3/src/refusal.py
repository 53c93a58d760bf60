"""The one exception by which section 3 says no.

A refusal is a result: it has a code that stays the same from version to version, for programs, and a reason in one
line, for people. The reason names files, attributes and UIDs, never a patient.

code                         meaning
---------------------------  ------------------------------------------------------------------------------------------
no-dicom                     the folder holds no DICOM image
unreadable-dicom             DICOM files are damaged, and one of them may be a slice of the input
several-studies              the files belong to more than one study
several-patients             the files of the study name more than one PatientID
no-hippocrop-series          no series of the study meets the conditions for the input
several-hippocrop-series     more than one series meets them
slices-missing               the series has fewer slices than it says itself
too-few-slices               the series has fewer slices than a volume needs
geometry-missing             an attribute that places a slice in space is absent or unusable
geometry-mixed-size          slices differ in rows or columns
geometry-mixed-spacing       slices differ in pixel spacing
geometry-mixed-orientation   slices differ in orientation
geometry-mixed-frame         slices differ in frame of reference
geometry-gantry-tilt         the slices are shifted against each other in their own plane
geometry-duplicate-position  two slices lie at the same position
geometry-gap                 a slice is missing between two others
geometry-uneven              the steps between slices differ
geometry-spacing             the voxels are smaller or larger than what can be resampled faithfully
geometry-field-of-view       the series covers more than any crop does
unreadable-pixels            the pixel data of a slice cannot be decoded to one grey value a pixel
bad-rules                    the rules for choosing the series are missing or no list of conditions
bad-model                    the model file or its limits are missing, it is no model, or breaks the volume contract
unfit-input                  the series is no crop of a T1 hippocampus as the model knows them (quality.py)
nothing-found                the model finds no voxel of one of the structures
structure-cut                what the model finds comes too near to the crop's edge, as where slices there are missing
implausible-result           what the model finds is no hippocampus as it knows them (quality.py)
cannot-fetch                 the archive does not give the study
not-stored                   the archive does not hold the results as they were sent, though it confirmed them
verification-failed          what was written, read back, is not what was measured
cannot-write                 the results cannot be written to the output folder
worker-died                  the process that worked on the study was killed, twice (batch only)
timed-out                    the study was not done within the time allowed (batch only)
no-scheduler                 no Dask cluster fit for work answers at the address given (batch only)
internal-error               a fault of this program
"""


def printable(text: str) -> str:
    """`text` as one line that moves no terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class Refusal(Exception):
    """Input that gets no number, with the reason.

    code: one of the table above. reason: what was found and what was expected; made one printable line here, as it may
    quote what stands in a file.
    """

    def __init__(self, code: str, reason: str):
        super().__init__(code, reason)
        self.code = code
        self.reason = printable(reason)[:1000]

    def __str__(self) -> str:
        return f"{self.reason} [{self.code}]"
