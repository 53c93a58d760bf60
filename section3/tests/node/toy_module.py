"""A second module, for tests: an object of the study that says how many slices the series has.

python toy_module.py SERIES OUTPUT COUNTER [DESCRIPTION [STUDY]]
"""

import sys
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid


def main(series: Path, output: Path, counter: Path, description: str = "HippoVolume.AI toy", study: str = "") -> None:
    with counter.open("a") as file:
        file.write("called\n")
    files = sorted(series.iterdir())
    made = pydicom.dcmread(files[0])
    seed = [made.SeriesInstanceUID, str(len(files))]
    made.SeriesInstanceUID = generate_uid(entropy_srcs=[*seed, "series"])
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=seed)
    made.StudyInstanceUID = study or made.StudyInstanceUID
    made.SeriesDescription, made.ImageComments = description, f"{len(files)} slices"
    made.save_as(output / "toy.dcm")
    print(made.PatientName)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
