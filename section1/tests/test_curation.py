"""Each rule finds its case, clean pairs pass, broken files stop nothing, and the copies are whole or not there."""

import csv
import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import curation


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    file = nib.load(path)
    return np.asarray(file.dataobj), file.affine


def write(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, affine), path)


def change(path: Path, new) -> None:
    """Rewrite a volume as new(array, affine) makes it."""
    write(path, *new(*read(path)))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def promise_too_much(path: Path) -> None:
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[42:48] = np.array([30000] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(header)))


def replace_by_link(target: str):
    def new(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return new


def replace_by_hdr_and_img(path: Path) -> None:
    """What was one file is the .hdr of two."""
    array, affine = read(path)
    nib.save(nib.Nifti1Pair(array, affine), path.with_name("pair.hdr"))
    path.with_name("pair.hdr").rename(path.with_suffix("").with_suffix(".hdr"))
    path.with_name("pair.img").rename(path.with_suffix("").with_suffix(".img"))
    path.unlink()


def set_unit(unit: str):
    def new(path: Path) -> None:
        file = nib.load(path)
        array = np.asarray(file.dataobj)
        file.header.set_xyzt_units(unit)
        nib.save(nib.Nifti1Image(array, file.affine, file.header), path)

    return new


def break_affine(path: Path) -> None:
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[280:284] = np.float32(np.nan).tobytes()  # the first number of the sform
    path.write_bytes(gzip.compress(bytes(header)))


def with_value(value: float):
    def new(array, affine):
        array = array.astype(np.float32)
        array[5, 5, 5] = value
        return array, affine

    return new


COARSE = np.diag([0.73, 0.73, 5, 1])

# What is done to the image and to the label of a clean pair, and the code that must be found.
SPOILED = {
    "image missing": (Path.unlink, None, "unpaired"),
    "label missing": (None, Path.unlink, "unpaired"),
    "image truncated": (truncate, None, "unreadable"),
    "label truncated": (None, truncate, "unreadable"),
    "no bytes": (lambda path: path.write_bytes(b""), None, "unreadable"),
    "text": (None, lambda path: path.write_text("not an image"), "unreadable"),
    "gzip of nonsense": (lambda path: path.write_bytes(gzip.compress(bytes(range(256)) * 20)), None, "unreadable"),
    "a folder": (replace_by_folder, None, "unreadable"),
    "a broken link": (replace_by_link("nowhere"), None, "unreadable: image: not a regular file"),
    "an endless device": (None, replace_by_link("/dev/zero"), "unreadable: label: not a regular file"),
    "a terabyte": (lambda path: os.truncate(path, 2**40), None, "empty or huge"),
    "affine not a number": (break_affine, None, "unreadable: image: its affine"),
    "in metres": (set_unit("meter"), None, "unit: image: its header says meter"),
    "complex numbers": (lambda path: change(path, lambda a, m: (a.astype(np.complex64), m)), None, "unreadable"),
    "more voxels than memory": (promise_too_much, None, "empty or huge"),
    "image 4D": (lambda path: change(path, lambda a, m: (np.stack([a, a], -1), m)), None, "not 3D"),
    "label 2D": (None, lambda path: change(path, lambda a, m: (a[:, :, 9], m)), "not 3D"),
    "not a number": (lambda path: change(path, with_value(np.nan)), None, "not finite"),
    "infinite": (lambda path: change(path, with_value(np.inf)), None, "not finite"),
    "beyond float32": (lambda path: change(path, lambda a, m: (a.astype(float) * 1e300, m)), None, "not finite"),
    "image all zero": (lambda path: change(path, lambda a, m: (a * 0, m)), None, "empty"),
    "label all zero": (None, lambda path: change(path, lambda a, m: (a * 0, m)), "structure missing"),
    "anterior only": (None, lambda path: change(path, lambda a, m: (a * (a == 1), m)), "structure missing"),
    "a label too many": (None, lambda path: change(path, with_value(3)), "label values"),
    "half a label": (None, lambda path: change(path, with_value(0.5)), "label values"),
    "below zero": (None, lambda path: change(path, with_value(-1)), "label values: -1"),
    "label not a number": (None, lambda path: change(path, with_value(np.nan)), "label values"),
    "one slice less": (None, lambda path: change(path, lambda a, m: (a[:-1], m)), "shapes differ"),
    "label elsewhere": (None, lambda path: change(path, lambda a, m: (a, m + np.eye(4, k=3))), "affines differ"),
    "label mirrored": (
        None,
        lambda path: change(path, lambda a, m: (a, m @ np.diag([-1, 1, 1, 1]))),
        "affines differ",
    ),
    "pair mirrored": (*[lambda path: change(path, lambda a, m: (a, m @ np.diag([-1, 1, 1, 1])))] * 2, "orientation"),
    "coarse": (*[lambda path: change(path, lambda a, m: (a, COARSE))] * 2, "spacing far from the rest"),
    "large": (*[lambda path: change(path, lambda a, m: (np.pad(a, 40), m))] * 2, "size far from the rest"),
}
HARMLESS = {
    "label as float": (None, lambda path: change(path, lambda a, m: (a.astype(np.float64), m)), None),
    "in millimetres": (set_unit("mm"), set_unit("mm"), None),
    "untouched": (None, None, None),
}


@pytest.fixture(scope="module")
def judged(clean_set, tmp_path_factory) -> dict[str, curation.PairFacts]:
    """All the spoiled pairs in one run, each beside seven clean ones of their own kind."""
    root = shutil.copytree(clean_set, tmp_path_factory.mktemp("spoiled") / "data")
    source = root / "images" / "hippocampus_001.nii.gz"
    for number, (what, (to_image, to_label, _)) in enumerate((SPOILED | HARMLESS).items()):
        paths = [root / kind / f"{what}.nii.gz" for kind in ("images", "labels")]
        for path, spoil in zip(paths, (to_image, to_label), strict=True):
            shutil.copy(root / path.parent.name / source.name, path)
            if path.parent.name == "images":
                change(path, lambda a, m, n=number: (a * (1 + n / 100), m))  # no duplicates
            if spoil:
                spoil(path)
    (root / "images" / "notes.txt").write_text("read me")
    (root / "images" / "._hippocampus_001.nii.gz").write_bytes(b"made on a Mac")
    return {pair.name.removesuffix(".nii.gz"): pair for pair in curation.curate(root)}


@pytest.mark.parametrize("what", SPOILED)
def test_spoiled_pair_is_excluded_with_its_reason(judged, what):
    pair = judged[what]
    assert not pair.kept
    assert any(problem.startswith(SPOILED[what][2]) for problem in pair.problems), pair.problems


@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_oddity_is_kept(judged, what):
    assert judged[what].kept, judged[what].problems


def test_clean_pairs_pass_beside_the_spoiled(judged):
    assert [name for name, pair in judged.items() if name.startswith("hippocampus_") and not pair.kept] == []


def test_every_name_has_a_row(judged):
    assert "notes.txt" in judged
    assert len(judged) == 8 + len(SPOILED) + len(HARMLESS) + 1


def test_reasons_name_no_path_of_this_machine(judged):
    assert not any("/" in problem for pair in judged.values() for problem in pair.problems)


def test_the_half_of_a_pair_of_files_is_not_kept(copy_of_clean_set):
    for kind in ("images", "labels"):
        replace_by_hdr_and_img(copy_of_clean_set / kind / "hippocampus_001.nii.gz")
    pairs = {pair.name: pair for pair in curation.curate(copy_of_clean_set)}
    assert not pairs["hippocampus_001.hdr"].kept
    assert not pairs["hippocampus_001.img"].kept


def test_clean_set_passes(clean_set, clean_pairs):
    assert [pair.problems for pair in clean_pairs] == [[]] * 8
    for pair in clean_pairs:
        label, _ = read(clean_set / "labels" / pair.name)
        assert pair.shape == label.shape
        assert (pair.anterior_mm3, pair.posterior_mm3) == ((label == 1).sum(), (label == 2).sum())


@pytest.mark.parametrize(("same_label", "kept"), [(True, [True, False]), (False, [False, False])])
def test_duplicates(copy_of_clean_set, same_label, kept):
    images, labels = (copy_of_clean_set / kind for kind in ("images", "labels"))
    array, affine = read(images / "hippocampus_003.nii.gz")
    write(images / "hippocampus_099.nii.gz", array.astype(np.float64), affine)  # other bytes, the same image
    shutil.copy(labels / "hippocampus_003.nii.gz", labels / "hippocampus_099.nii.gz")
    if not same_label:
        change(labels / "hippocampus_099.nii.gz", with_value(1))
    pairs = {pair.name: pair for pair in curation.curate(copy_of_clean_set)}
    twins = [pairs[f"hippocampus_{number}.nii.gz"] for number in ("003", "099")]
    assert [twin.kept for twin in twins] == kept
    assert twins[1].problems[0].startswith("duplicate: same image as hippocampus_003")


def test_volumes_use_the_spacing(tmp_path):
    label = np.zeros((10, 12, 14), np.uint8)
    label[2:4, 6:8, 3:5], label[2:4, 3:6, 3:5] = 1, 2
    image = np.random.default_rng(0).normal(size=label.shape)
    for name, array in (("image", image), ("label", label)):
        write(tmp_path / f"{name}.nii", array, np.diag([0.5, 2.0, 3.0, 1]))
    facts = curation.examine_pair(tmp_path / "image.nii", tmp_path / "label.nii")
    assert (facts.anterior_mm3, facts.posterior_mm3, facts.total_mm3) == (24, 36, 60)
    assert facts.spacing_mm == (0.5, 2.0, 3.0)
    assert (facts.border_y, facts.border_misfits) == (6, 0)


def test_border_plane_counts_what_it_cannot_part():
    label = np.zeros((4, 10, 4), np.uint8)
    label[:, 2:5], label[:, 5:9] = 2, 1
    label[0, 6, 0] = 2
    assert curation.border_plane(label) == (5, 1)


# --- flags ---------------------------------------------------------------------------------------------------------


def add_a_voxel_in_the_corner(label, affine):
    label[1, 1, 1] = 2
    return label, affine


def fray_the_border(label, affine):
    y, _ = curation.border_plane(label)
    x, z = np.argwhere(label[:, y] > 0)[0]
    label[x, y, z] = 2
    return label, affine


def take_the_surface_off(label, affine):
    inside = np.ones(label.shape, bool)
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(label, step, axis) > 0
    return label * inside, affine


@pytest.mark.parametrize(
    ("flag", "change_label"),
    [
        ("disconnected", add_a_voxel_in_the_corner),
        ("no_border_plane", fray_the_border),
        ("unusual_volume", take_the_surface_off),
    ],
)
def test_flag_is_raised_and_does_not_exclude(clean_pairs, copy_of_clean_set, flag, change_label):
    name = next(pair.name for pair in clean_pairs if not pair.flags)
    change(copy_of_clean_set / "labels" / name, change_label)
    changed = {pair.name: pair for pair in curation.curate(copy_of_clean_set)}[name]
    assert changed.kept
    assert flag in changed.flags


def test_moved_label_is_flagged(larger_pairs, larger_set, tmp_path):
    root = shutil.copytree(larger_set, tmp_path / "data")
    before = next(pair for pair in larger_pairs if not pair.flags)
    change(root / "labels" / before.name, lambda a, m: (np.roll(a, 1, axis=2), m))
    after = {pair.name: pair for pair in curation.curate(root)}[before.name]
    assert after.kept
    assert "label_shifted" in after.flags
    assert after.shift_voxels[2] - before.shift_voxels[2] > 0.6


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("hippocampus_001.nii.gz", "1"),
        ("hippocampus_002.nii.gz", "1"),
        ("hippocampus_003.nii", "2"),
        ("scan.nii.gz", "scan.nii.gz"),
    ],
)
def test_person(name, person):
    assert curation.person_of(name) == person


# --- the program ---------------------------------------------------------------------------------------------------


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_program_copies_and_tells(clean_set, tmp_path, capsys):
    out = tmp_path / "results" / "out"
    assert curation.main(["--data-root", str(clean_set), "--out", str(out)]) == 0
    assert names_below(out) == ["curation.csv", *names_below(clean_set)]
    for name in names_below(clean_set):
        assert (out / name).read_bytes() == (clean_set / name).read_bytes()
    with (out / "curation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["kept"] * 8
    assert [row["person"] for row in rows] == ["1", "1", "2", "2", "3", "3", "4", "4"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("8 pairs of 4 persons kept, out of 8 names")


def run_program(data_root: Path, out: Path, **environment: str) -> subprocess.CompletedProcess:
    """The program in a process of its own, which is killed if it hangs."""
    return subprocess.run(
        [sys.executable, curation.__file__, "--data-root", data_root, "--out", out],
        env=os.environ | environment,
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_pipe_among_the_files_keeps_nobody_waiting(copy_of_clean_set, tmp_path):
    os.mkfifo(copy_of_clean_set / "images" / "pipe.nii.gz")
    (copy_of_clean_set / "images" / "hippocampus_001.nii.gz").unlink()
    os.mkfifo(copy_of_clean_set / "images" / "hippocampus_001.nii.gz")
    result = run_program(copy_of_clean_set, tmp_path / "out")
    assert (result.returncode, b"Traceback" in result.stderr) == (0, False), result.stderr
    assert b"excluded hippocampus_001.nii.gz: unreadable: image: not a regular file\n" in result.stdout
    assert b"excluded pipe.nii.gz: unreadable: image: not a regular file; unpaired" in result.stdout
    assert b"7 pairs of 4 persons kept" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shown"), [(b"hippo\xff.nii.gz", "hippo\\udcff"), (b"two\nlines.nii.gz", "two\\nlines")]
)
def test_a_name_that_cannot_be_printed_is_one_line(copy_of_clean_set, tmp_path, name, shown):
    for kind in ("images", "labels"):
        folder = os.fsencode(copy_of_clean_set / kind)
        shutil.copy(os.path.join(folder, b"hippocampus_001.nii.gz"), os.path.join(folder, name))  # noqa: PTH118
    result = run_program(copy_of_clean_set, tmp_path / "out")
    assert (result.returncode, b"Traceback" in result.stderr) == (0, False), result.stderr
    assert result.stdout.decode().startswith(f"excluded {shown}.nii.gz: name: not printable UTF-8\n9 ")
    assert f"{shown}.nii.gz,excluded,name: " in (tmp_path / "out" / "curation.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_name_beyond_the_terminals_encoding(copy_of_clean_set, tmp_path):
    (copy_of_clean_set / "images" / "gehörn.nii.gz").write_bytes(b"")
    result = run_program(copy_of_clean_set, tmp_path / "out", PYTHONIOENCODING="ascii")
    assert (result.returncode, b"Traceback" in result.stderr) == (0, False), result.stderr
    assert b"excluded geh\\xf6rn.nii.gz: " in result.stdout
    assert "gehörn.nii.gz,excluded" in (tmp_path / "out" / "curation.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_rerun_replaces(copy_of_clean_set, tmp_path):
    out = tmp_path / "out"
    command = ["--data-root", str(copy_of_clean_set), "--out", str(out)]
    assert curation.main(command) == 0
    table = (out / "curation.csv").read_bytes()
    assert curation.main(command) == 0
    assert (out / "curation.csv").read_bytes() == table
    for kind in ("images", "labels"):
        (copy_of_clean_set / kind / "hippocampus_004.nii.gz").unlink()
    assert curation.main(command) == 0
    assert not list(out.rglob("hippocampus_004*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_what_is_not_an_earlier_result_is_never_replaced(clean_set, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert curation.main(["--data-root", str(clean_set), "--out", str(tmp_path)]) == 1
    assert names_below(tmp_path) == ["thesis.tex"]
    assert "choose another --out" in capsys.readouterr().err


def test_an_out_that_is_a_circle_of_links_is_one_line(clean_set, tmp_path, capsys):
    (tmp_path / "out").symlink_to("out")
    assert curation.main(["--data-root", str(clean_set), "--out", str(tmp_path / "out")]) == 1
    assert str(tmp_path / "out") in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_data_are_never_replaced(copy_of_clean_set):
    (copy_of_clean_set / "curation.csv").write_text("")
    before = names_below(copy_of_clean_set)
    assert curation.main(["--data-root", str(copy_of_clean_set), "--out", str(copy_of_clean_set)]) == 1
    assert names_below(copy_of_clean_set) == before


def test_bad_copy_leaves_nothing(clean_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(curation.shutil, "copyfile", lambda source, target: Path(target).write_bytes(b"half"))
    assert curation.main(["--data-root", str(clean_set), "--out", str(tmp_path / "out")]) == 1
    assert list(tmp_path.iterdir()) == []
    assert "the copy differs" in capsys.readouterr().err


def test_nothing_clean_writes_nothing(copy_of_clean_set, tmp_path, capsys):
    for path in (copy_of_clean_set / "labels").iterdir():
        path.write_bytes(b"")
    assert curation.main(["--data-root", str(copy_of_clean_set), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    assert "no clean pair" in capsys.readouterr().err


@pytest.mark.parametrize("folders", [(), ("images", "labels")], ids=["no folders", "empty folders"])
def test_no_data_is_one_line(folders, tmp_path, capsys):
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert curation.main(["--data-root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_usage_error_exits_2():
    with pytest.raises(SystemExit) as stop:
        curation.main(["--no-such-option"])
    assert stop.value.code == 2


@pytest.mark.parametrize("layout", ["TrainingSet/images", "images", "imagesTr", "TrainingSet/imagesTr"])
def test_layouts(tmp_path, layout):
    images = tmp_path / layout
    labels = images.with_name(images.name.replace("images", "labels"))
    for folder in (images, labels):
        folder.mkdir(parents=True)
    assert curation.find_folders(tmp_path) == (images, labels)


def test_default_data_root(monkeypatch):
    monkeypatch.setenv("HIPPO_DATA", "/somewhere")
    assert curation.default_data_root() == Path("/somewhere")
    monkeypatch.delenv("HIPPO_DATA")
    assert curation.default_data_root() == Path(curation.__file__).resolve().parents[1] / "data"


@pytest.mark.slow
def test_real_data(real_data):
    """208 pairs of the 208-volume copy, 260 of the complete set: every name with both files, and none besides."""
    folders = curation.find_folders(real_data)
    both = set.intersection(*({path.name for path in folder.glob("[!.]*")} for folder in folders))
    kept = [pair for pair in curation.curate(real_data) if pair.kept]
    assert len(kept) in (208, 260)
    assert {pair.name for pair in kept} <= both
    moved = {f"hippocampus_{number}.nii.gz" for number in ("041", "042", "228", "245", "305")}
    flagged = {pair.name for pair in kept if "label_shifted" in pair.flags}
    assert moved <= flagged
    assert len(flagged) < 15
