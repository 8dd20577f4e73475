"""Contracts of the configuration."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from pipelines.configuration import RunConfig, load_config, presets
from pipelines.fingerprint import slide_fingerprint
from wsi_her2.errors import ConfigurationError


def test_the_default_preset_states_exactly_the_defaults_of_the_code() -> None:
    assert load_config("default") == RunConfig()


def test_the_default_preset_lists_every_setting() -> None:
    def keys(mapping: dict, prefix: str = "") -> set[str]:
        found = set()
        for key, value in mapping.items():
            found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
        return found

    stated = yaml.safe_load(presets()["default"].read_text(encoding="utf-8"))
    assert keys(stated) == keys(RunConfig().model_dump(mode="json"))


def test_options_win_over_the_file_and_unset_options_do_not(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mpp: 0.3\ncompute: {workers: 4}\n")
    config = load_config(file, {"mpp": None, "compute.workers": 1})
    assert (config.mpp, config.compute.workers) == (0.3, 1)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("mpp: -1", "mpp"),
        ("modality: xray", "modality"),
        ("thresholds: {positive_over: 10}", "thresholds"),
        ("tissue: {min_density: dark}", "min_density"),
        ("unknown: 1", "unknown"),
        ("- a\n- b", "mapping"),
        ("a: [", "YAML"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"wrong\.yaml") as caught:
        load_config(file)
    assert named in str(caught.value)


def test_an_unknown_preset_names_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="default"):
        load_config("no-such-preset")


def test_a_huge_file_is_not_read_as_configuration(tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    file.write_bytes(b"a: 1\n" * 300_000)
    with pytest.raises(ConfigurationError, match="larger than"):
        load_config(file)


def test_the_fingerprint_follows_what_changes_results_and_nothing_else(tmp_path: Path) -> None:
    slide = tmp_path / "slide.tif"
    slide.write_bytes(b"x" * 100)
    base = slide_fingerprint(slide, RunConfig(), "a", "onnx")
    same = {"compute.workers": 7, "model": "elsewhere/the-same-model", "runtime": "onnx"}
    assert slide_fingerprint(slide, load_config(None, same), "a", "onnx") == base
    for changed in ({"thresholds.low_over_pct": 5.0}, {"precision": "int8"}, {"tta": "turns"}):
        assert slide_fingerprint(slide, load_config(None, changed), "a", "onnx") != base
    assert slide_fingerprint(slide, RunConfig(), "b", "onnx") != base
    assert slide_fingerprint(slide, RunConfig(), "a", "torch") != base
    slide.write_bytes(b"x" * 101)
    assert slide_fingerprint(slide, RunConfig(), "a", "onnx") != base


@pytest.mark.parametrize(
    "content",
    [
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)),
        "[" * 5000,
        "model: !!python/object/apply:os.system ['exit 7']\n",
        "mpp: " + "9" * 10_000 + "\n",
        "compute: 5\n",
        "1: 2\n",
    ],
    ids=["aliases", "merges", "deep", "code", "digits", "no section", "no name"],
)
def test_yaml_that_is_made_to_harm_is_refused_at_once(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(content)
    started = time.process_time()
    with pytest.raises(ConfigurationError, match=r"bomb\.yaml") as refused:
        load_config(path, {"compute.workers": 1})
    assert time.process_time() - started < 2
    assert len(str(refused.value)) < 3000


def test_a_pipe_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError):
        load_config(tmp_path / "config.yaml")
