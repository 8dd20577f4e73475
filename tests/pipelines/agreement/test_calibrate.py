"""`calibrate` and `score --lab`: a profile is fitted, kept by name, used and named in every result."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from pipelines.agreement.calibrate_lab import calibrate_lab
from pipelines.configuration import RunConfig
from pipelines.lab_profiles import FOLDER_VARIABLE
from pipelines.run.score import score
from tests.pipelines.conftest import ihc_pixels, write_slide
from wsi_her2.errors import ConfigurationError, LabProfileError


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real stained tissue with its density scaled: weak, moderate and strong; one of them an image."""
    folder = tmp_path_factory.mktemp("controls")
    for grade, gain in (("1+", 0.45), ("3+", 1.6)):
        (folder / grade).mkdir()
        write_slide(folder / grade / "control.tif", ihc_pixels(gain=gain))
    (folder / "0").mkdir()
    cv2.imwrite(str(folder / "0" / "control.png"), ihc_pixels(gain=0.15)[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def kept(controls: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of profiles with the profile `ours` in it."""
    folder = tmp_path_factory.mktemp("labs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        path, profile, table = calibrate_lab(controls, "ours", None, mpp=0.5)
    assert profile.controls == {"0": 1, "1+": 1, "2+": 0, "3+": 1}
    assert [row["score"] for row in table] == ["0", "1+", "3+"]
    assert "controls are called right" in profile.statements["agreement"]
    return folder, path


def test_a_run_with_a_profile_names_it_in_every_result(
    kept: tuple[Path, Path], ihc_slide: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = kept
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    named = score([ihc_slide], tmp_path / "out", config.model_copy(update={"lab": "ours"})).results[0]
    assert named.calibration == "lab:ours"
    assert named.stain is not None
    assert named.stain.method == "lab-profile"
    assert "lab:ours" in (tmp_path / "out" / "slides.csv").read_text()
    assert "laboratory profile ours" in (tmp_path / "out" / "stained" / "report.html").read_text()
    by_path = score([ihc_slide], tmp_path / "out", config.model_copy(update={"lab": str(path)})).results[0]
    assert by_path == named, "the same profile, so the result is reused"
    plain = score([ihc_slide], tmp_path / "out", config).results[0]
    assert plain.calibration == "none"
    assert plain.fingerprint != named.fingerprint


def test_a_profile_for_another_classifier_and_an_unknown_name_are_refused(
    kept: tuple[Path, Path], ihc_slide: Path, config: RunConfig, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    described = json.loads(kept[1].read_text()) | {"classifier_sha256": "0" * 64}
    other.write_text(json.dumps(described))
    with pytest.raises(LabProfileError, match="calibrate again"):
        score([ihc_slide], tmp_path / "out", config.model_copy(update={"lab": str(other)}))
    with pytest.raises(ConfigurationError, match="wsi-her2 calibrate"):
        score([ihc_slide], tmp_path / "out", config.model_copy(update={"lab": "nobody"}))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "at least two controls"),
        (lambda folder: [(folder / "3+" / name).touch() for name in ("a.png", "b.png")], "all controls are 3"),
        (lambda folder: [(folder / g / "a.png").write_bytes(b"x") for g in ("3+", "0")], "cannot be decoded"),
    ],
)
def test_controls_that_cannot_carry_a_profile_are_an_error_that_says_why(tmp_path: Path, make, words) -> None:
    for grade in ("0", "3+"):
        (tmp_path / grade).mkdir()
    make(tmp_path)
    with pytest.raises(LabProfileError, match=words):
        calibrate_lab(tmp_path, None, tmp_path / "lab.json", mpp=0.5)
    assert not (tmp_path / "lab.json").exists()
