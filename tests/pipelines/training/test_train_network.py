"""Training from a configuration: a bundle that scores, splits that hold, interruptions that lose nothing."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest
import yaml

from tests.pipelines.conftest import PATIENCE_S, cli_command
from wsi_her2.learning.miniature import make_miniatures
from wsi_her2.models.bundle import read_bundle
from wsi_her2.models.loading import load_classifier

for package in ("torch", "timm", "lightning", "matplotlib"):
    pytest.importorskip(package)

from pipelines.training.study import Study as StudySettings  # noqa: E402
from pipelines.training.study import experiments, run_study  # noqa: E402
from pipelines.training.train import train  # noqa: E402
from wsi_her2.errors import ConfigurationError, DatasetError  # noqa: E402


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    return make_miniatures(tmp_path_factory.mktemp("data"), kinds=("bci", "published"), per_class=6)


def described(folder, **changes):
    settings = {
        "kind": "network",
        "name": "small",
        "architecture": "pruneff1",
        "patch_px": 64,
        "modality": "ihc",
        "data": {"kind": "folder", "folder": str(folder)},
        "optimisation": {"epochs": 2, "batch": 8, "learning_rate": 1e-3},
        "seed": 3,
    }
    return settings | changes


def write(path, settings):
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def trained(miniatures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    config = write(folder / "config.yaml", described(miniatures["published"]))
    return folder / "out", train(config, folder / "out", workers=1)


def test_a_training_leaves_a_bundle_with_its_card_pictures_and_figures(trained):
    folder, card = trained
    bundle = read_bundle(folder / "bundle")
    assert bundle.card.training.status == "trained"
    assert "images of folder" in bundle.card.training.data
    assert bundle.card.classes == ("0", "1+", "2+", "3+")
    assert not bundle.card.mpp_stated
    assert "patches/s" in bundle.card.statements["training"]
    for picture in ("curves.png", "confusion.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["epochs"] == 2
    assert card["sha256"] == bundle.sha256
    confusion = np.array(metrics["validation"]["confusion"])
    assert confusion.sum() == metrics["validation"]["images"] > 0


def test_the_bundle_of_a_training_classifies(trained, ihc_image):
    classifier = load_classifier(trained[0] / "bundle", runtime="onnx")
    found = classifier.predict(ihc_image[None, :64, :64])
    assert found.shape == (1, 4)
    assert found.sum() == pytest.approx(1, abs=1e-5)


def test_the_split_is_written_and_shares_no_group(trained):
    import pandas as pd

    split = pd.read_csv(trained[0] / "split.csv")
    assert set(split["part"]) >= {"train", "validation"}
    assert (split.groupby("group")["part"].nunique() == 1).all()


def test_a_folder_with_another_training_is_refused(trained, miniatures, tmp_path):
    config = write(tmp_path / "other.yaml", described(miniatures["published"], seed=4))
    with pytest.raises(ConfigurationError, match="other settings"):
        train(config, trained[0], workers=1)


def test_equal_settings_make_equal_weights_and_a_killed_training_goes_on_as_if_it_had_not_been(
    trained, miniatures, tmp_path
):
    config = write(tmp_path / "config.yaml", described(miniatures["published"]))
    command = cli_command("train", config, "-o", tmp_path / "out", "--workers", 1)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + PATIENCE_S
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last.exists()
    assert not (tmp_path / "out" / "bundle").exists()
    train(config, tmp_path / "out", workers=1)
    whole, resumed = read_bundle(trained[0] / "bundle"), read_bundle(tmp_path / "out" / "bundle")
    for name, values in whole.weights.items():
        np.testing.assert_allclose(resumed.weights[name], values, atol=1e-5, err_msg=name)
    history = [
        json.loads((path / "metrics.json").read_text())["history"] for path in (trained[0], tmp_path / "out")
    ]
    assert [len(values) for values in history[0].values()] == [len(values) for values in history[1].values()]


def test_another_task_takes_over_the_body_and_can_freeze_it(trained, miniatures, tmp_path):
    data = {"kind": "bci", "folder": str(miniatures["bci"]), "grouping": "binary", "any_size": True}
    settings = described(
        None, name="binary", data=data, start=str(trained[0] / "bundle"), freeze_body=True, sigmoid=True
    )
    train(write(tmp_path / "config.yaml", settings), tmp_path / "out", workers=1)
    before, after = read_bundle(trained[0] / "bundle"), read_bundle(tmp_path / "out" / "bundle")
    assert after.card.classes == ("negative", "positive")
    assert "small" in after.card.origin
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]["images"] > 0
    for name, values in before.weights.items():
        if name.startswith(("stem", "blocks")):
            np.testing.assert_array_equal(after.weights[name], values, err_msg=name)
    assert before.card.statements["training"] in after.card.statements["training"]
    assert not np.array_equal(after.weights["hidden.weight"], before.weights["hidden.weight"])


@pytest.mark.slow
def test_phantoms_make_a_classifier_of_shares(tmp_path):
    data = {
        "kind": "phantoms",
        "looks": ["aperio"],
        "count": 8,
        "validation_count": 8,
        "field_px": 128,
        "slides": {"count": 2, "validation_count": 1, "fields": 3, "seed": 4},
        "seed": 1,
    }
    optimisation = {"epochs": 1, "batch": 4, "average": 0.9}
    settings = described(
        None, data=data, mpp=0.5, patch_px=128, crop_px=96, dense_weight=1.0, optimisation=optimisation
    )
    card = train(write(tmp_path / "config.yaml", settings), tmp_path / "out", workers=1)
    bundle = read_bundle(tmp_path / "out" / "bundle")
    assert bundle.card.outputs == "shares"
    assert "8 fields and 2 slides with 3 fields each" in bundle.card.training.data
    assert "no tissue of patients" in bundle.card.training.data
    assert bundle.card.architecture.patch_px == 128
    assert np.allclose(np.sum(bundle.card.confusion, axis=1), 1, atol=1e-3)
    assert 0 < card["share_error"] < 1


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"architecture": "resnet"}, ValueError, "no network"),
        ({"patch_px": 10}, ConfigurationError, "patch_px"),
        ({"data": {"kind": "folder", "folder": "/nowhere"}}, DatasetError, "nowhere"),
        ({"start": "imagenet", "architecture": "ather2", "patch_px": 96}, ConfigurationError, "ATHER2"),
        ({"optimisation": {"epochs": 0}}, ConfigurationError, "epochs"),
        ({"unknown": 1}, ConfigurationError, "unknown"),
        ({"crop_px": 64}, ConfigurationError, "crop_px is for phantoms"),
        ({"data": {"kind": "breakhis", "folder": "."}}, ConfigurationError, "H&E"),
    ],
)
def test_a_wrong_configuration_is_named_before_anything_is_trained(miniatures, tmp_path, changes, error, words):
    config = write(tmp_path / "config.yaml", described(miniatures["published"], **changes))
    with pytest.raises(error, match=words):
        train(config, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "bundle").exists()


def test_a_study_names_every_experiment_once():
    study = StudySettings(kind="study", miniature=True, breakhis="somewhere")
    names = [experiment.name for experiment in experiments(study)]
    assert len(names) == len(set(names)) == 16 + 4
    assert "ather2-he-binary-pretrained" in names
    assert "pruneff1-ihc-grades-pretrained" in names


def test_a_study_without_data_says_what_to_name(tmp_path):
    with pytest.raises(ConfigurationError, match="bci"):
        run_study(write(tmp_path / "study.yaml", {"kind": "study"}), tmp_path / "out")


@pytest.mark.slow
def test_the_miniature_study_runs_whole_and_continues(tmp_path):
    results = run_study("study-miniature", tmp_path / "out")
    assert len(results) == 16 + 2
    for result in results:
        assert result["test"]["images"] > 0
        assert result["external"]["groups"] >= 4
        assert set(result["test"]["metrics"]) == set(result["external"]["metrics"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Miniature data sets" in page
    assert "0.97-1" in page
    assert len((tmp_path / "out" / "study.csv").read_text().splitlines()) == 1 + 3 * len(results)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/result.json")}
    assert run_study("study-miniature", tmp_path / "out") == results
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/result.json")} == kept
