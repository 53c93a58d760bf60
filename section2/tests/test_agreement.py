from agreement import main as agreement


def test_a_run_agrees_with_itself(tiny_run, phantom_set, tmp_path, capsys):
    options = ["--data-root", str(phantom_set), "--names", "one", "other", "--figure", str(tmp_path / "agreement.png")]
    assert agreement([str(tiny_run), str(tiny_run), *options]) == 0
    told = capsys.readouterr().out
    assert told.startswith("2 volumes of 1 persons")
    (mutual,) = [line for line in told.splitlines() if line.startswith("| one and other")]
    assert mutual.count("1.0000") == 3
    assert (tmp_path / "agreement.png").exists()


def test_agreement_needs_runs(tmp_path, phantom_set, capsys):
    assert agreement([str(tmp_path), str(tmp_path), "--data-root", str(phantom_set)]) == 1
    assert "config.json" in capsys.readouterr().err
