"""Studies of variants: one thing changed at a time."""

import json
import shutil

import pytest

import studies
from config import Config
from hippocampus_data import DataError, Split, nifti_files
from variants import Variant, fewer, flagged

SMALL = {"filters": 2, "depth": 2, "epochs": 1, "validation_share": 0.0, "folds": 2, "only_fold": 1}


def test_every_variant_differs_from_the_base_and_is_a_recipe():
    assert all(variant != Variant() for name, variant in studies.VARIANTS.items() if name != "base")
    for variant in studies.VARIANTS.values():
        recipe, base = Config(**(studies.BASE | variant.settings)), Config(**studies.BASE)
        assert all(getattr(recipe, name) != getattr(base, name) for name in variant.settings)


def test_fewer_to_learn_from_never_changes_the_test():
    names = [f"hippocampus_{n:03d}.nii.gz" for n in range(1, 41)]
    split = Split(names[:32], [], names[32:])
    without = fewer(split, {"hippocampus_005.nii.gz", "hippocampus_039.nii.gz"})
    assert without.test == split.test
    assert set(split.train) - set(without.train) == {"hippocampus_005.nii.gz"}


def test_what_is_left_out_is_what_section_1_has_flagged(tmp_path):
    with pytest.raises(DataError, match=r"curation\.csv does not exist"):
        flagged(tmp_path, "label_shifted")
    rows = "a.nii.gz,label_shifted\nb.nii.gz,\nc.nii.gz,label_shifted no_border_plane\nd.nii.gz,no_border_plane\n"
    (tmp_path / "curation.csv").write_text("name,flags\n" + rows)
    assert flagged(tmp_path, "label_shifted") == {"a.nii.gz", "c.nii.gz"}


@pytest.mark.slow
def test_a_study_trains_compares_and_goes_on(phantom_set, tmp_path, capsys):
    root, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(phantom_set, root)
    first, *others = (path.name for path in nifti_files(root / "images"))
    rows = [f"{first},label_shifted", *(f"{name}," for name in others)]
    (root / "curation.csv").write_text("\n".join(["name,flags", *rows]))
    options = ["--study", "labels", "--data-root", str(root), "--out", str(out)]
    assert studies.main(options, base=SMALL) == 0
    told = capsys.readouterr().out
    assert {"base", "another start", "one class"} <= {line[2:].split("  ")[0] for line in told.splitlines()}
    assert (out / "labels.png").exists()
    results = out / "one_class" / "results.json"
    assert json.loads(results.read_text())["cost"]["peak_mb"] > 50
    written = results.stat().st_mtime_ns
    assert studies.main(options, base=SMALL) == 0
    assert results.stat().st_mtime_ns == written
