import argparse
import dataclasses
import json

import pytest

from config import Config, add_options, given_settings


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


def test_every_field_is_an_option_with_its_reason(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    told = capsys.readouterr().out
    for field in dataclasses.fields(Config):
        if field.name not in ("fine_tune", "teachers"):  # they have options of their own
            assert f"--{field.name.replace('_', '-')}" in told
            assert field.metadata["help"].split()[0] in told


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"epochs": 3, "filters": 8}))
    config = Config.load(file, **given_settings(parse("--epochs", "5", "--no-augment")))
    assert (config.epochs, config.filters, config.augment, config.depth) == (5, 8, False, Config().depth)


def test_saved_settings_are_read_back(tmp_path):
    config = Config(epochs=7, norm="instance")
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    "values",
    [{"context": 4}, {"dims": 4}, {"norm": "layer"}, {"epochs": 0}, {"test_share": 0.9, "validation_share": 0.2}],
)
def test_senseless_values_are_named(values):
    with pytest.raises(ValueError, match=r"setting (context|dims|norm|epochs|validation_share) cannot be"):
        Config(**values)


@pytest.mark.parametrize("text", ["not json", '{"no_such_setting": 1}', "[1, 2]"])
def test_a_file_of_nonsense_is_named(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"broken\.json"):
        Config.load(file)
