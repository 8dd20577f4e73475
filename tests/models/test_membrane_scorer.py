"""The membrane scorer is a classifier whose every number can be read, and a wrong file is named."""

import json
from importlib import resources

import cv2
import numpy as np
import pytest

from wsi_her2.errors import ClassifierError
from wsi_her2.models.classifier import content_sha256
from wsi_her2.models.loading import load_classifier
from wsi_her2.models.membrane.measures import MEASURES
from wsi_her2.slides.density import HEMATOXYLIN_DAB

BUNDLED = (resources.files("wsi_her2.models.membrane") / "coefficients.json").read_bytes()


@pytest.fixture(scope="module")
def scorer():
    return load_classifier()


def cells(density, side=128):
    """A patch of cells with nuclei whose closed membranes have a DAB density."""
    membrane, nuclei = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    for x in range(16, side, 28):
        for y in range(16, side, 28):
            cv2.circle(membrane, (x, y), 12, 1.0, 3)
            cv2.circle(nuclei, (x, y), 7, 1.0, -1)
    first, second, _ = HEMATOXYLIN_DAB.matrix()
    layers = (cv2.GaussianBlur(layer, (0, 0), 0.8)[..., None] for layer in (membrane, nuclei))
    dab, hematoxylin = layers
    return np.rint(255 * 10.0 ** -(density * dab * second + 0.3 * hematoxylin * first)).astype(np.uint8)


def changed(path, **fields):
    described = json.loads(BUNDLED) | fields
    path.write_text(json.dumps(described))
    return path


# The classifier


def test_the_bundled_scorer_is_the_default_and_describes_itself(scorer):
    assert scorer.name == load_classifier("membrane").name == "membrane"
    assert scorer.sha256 == content_sha256(BUNDLED)
    assert scorer.classes == ("other", "0", "1+", "2+", "3+")
    assert (scorer.patch_px, scorer.mpp, scorer.modality) == (128, 0.5, "ihc")
    assert scorer.measure_names == MEASURES
    assert scorer.trained
    assert scorer.card["validated"] is False
    assert "origin" in scorer.card


def test_probabilities_are_float32_and_sum_to_one(scorer, ihc_image):
    rng = np.random.default_rng(0)
    batch = np.stack(
        [
            np.zeros((128, 128, 3), np.uint8),
            np.full((128, 128, 3), 255, np.uint8),
            rng.integers(0, 256, (128, 128, 3)).astype(np.uint8),
            ihc_image[:128, :128],
            ihc_image[200:328, 300:428],
            cells(0.5),
        ]
    )
    got = scorer.predict(batch)
    assert (got.dtype, got.shape) == (np.float32, (6, 5))
    assert (got >= 0).all()
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


def test_a_batch_is_predicted_as_each_patch_is(scorer, ihc_image):
    batch = np.stack([ihc_image[:128, x : x + 128] for x in range(0, 384, 64)])
    got = scorer.predict(batch)
    for row, patch in zip(got, batch, strict=True):
        np.testing.assert_array_equal(scorer.predict(patch[None])[0], row)


def test_an_empty_batch_has_no_rows(scorer):
    probabilities, measures = scorer.predict_and_measure(np.zeros((0, 128, 128, 3), np.uint8))
    assert (probabilities.shape, measures.shape) == ((0, 5), (0, len(MEASURES)))


def test_measures_come_with_the_prediction(scorer):
    batch = cells(0.4)[None]
    probabilities, measures = scorer.predict_and_measure(batch)
    np.testing.assert_array_equal(probabilities, scorer.predict(batch))
    np.testing.assert_array_equal(probabilities, scorer.regression.probabilities(measures))


def test_glass_is_other(scorer):
    assert scorer.predict(np.full((1, 128, 128, 3), 255, np.uint8)).argmax() == 0


def test_more_dab_on_the_membranes_gives_a_higher_grade(scorer):
    batch = np.stack([cells(density) for density in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.4)])
    probabilities, measures = scorer.predict_and_measure(batch)
    grade = scorer.regression.grade(measures)
    assert (np.diff(grade) > 0).all()
    tumour = probabilities[:, 1:] / probabilities[:, 1:].sum(axis=1, keepdims=True)
    assert (np.diff(tumour @ np.arange(4)) > -1e-6).all()
    assert tumour[0].argmax() == 0
    assert tumour[-1].argmax() == 3


def test_each_class_follows_the_last_as_the_grade_rises(scorer):
    regression = scorer.regression
    measures = np.zeros((400, len(MEASURES)), np.float32)
    for feature, weight in zip(regression.features, regression.grade_weights, strict=True):
        if weight > 0:
            space = np.geomspace if feature.transform == "log" else np.linspace
            measures[:, MEASURES.index(feature.measure)] = space(feature.low, feature.high, 400)
    labels = regression.probabilities(measures)[:, 1:].argmax(axis=1)
    assert (np.diff(labels) >= 0).all()
    assert set(labels.tolist()) == {0, 1, 2, 3}


def test_the_mean_grade_orders_real_cores_by_their_score(scorer, core_patches):
    grades = {}
    for name, patches in core_patches.items():
        probabilities, measures = scorer.predict_and_measure(patches)
        tumour = probabilities.argmax(axis=1) > 0
        assert tumour.sum() >= 10
        grades[name] = float(scorer.regression.grade(measures)[tumour].mean())
    assert (
        max(grades["score0_a"], grades["score0_b"]) < grades["score1_a"] < grades["score2_a"] < grades["score3_a"]
    )


# Files


def test_a_file_of_the_same_form_is_a_classifier(tmp_path):
    path = changed(tmp_path / "mine.json", name="mine", mpp=0.25)
    loaded = load_classifier(path)
    assert (loaded.name, loaded.mpp, loaded.scale.mpp) == ("mine", 0.25, 0.25)
    assert loaded.sha256 == content_sha256(path.read_bytes()) != content_sha256(BUNDLED)
    assert load_classifier(str(path)) == loaded


def test_what_is_neither_bundled_nor_a_file_is_named(tmp_path):
    with pytest.raises(ClassifierError, match="resnet50"):
        load_classifier("resnet50")
    with pytest.raises(ClassifierError, match="neither"):
        load_classifier(tmp_path)


def test_another_kind_of_file_is_named(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ClassifierError, match=r"weights\.h5"):
        load_classifier(tmp_path / "weights.h5")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'"x"', b"null", b"\xff\xfe", b"{}"])
def test_bad_json_is_a_classifier_error_that_names_the_file(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(ClassifierError, match=r"bad\.json"):
        load_classifier(tmp_path / "bad.json")


GRADE = json.loads(BUNDLED)["grade"]
FEATURES = json.loads(BUNDLED)["features"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "network"}, "network"),
        ({"classes": ["0", "1+", "2+", "3+"]}, "classes"),
        ({"classes": ["other", "0", "1+", "3+", "2+"]}, "classes"),
        ({"modality": "dapi"}, "dapi"),
        ({"mpp": "fine"}, "fine"),
        ({"grade": GRADE | {"cuts": [0.5, 0.4, 4.0]}}, "ascend"),
        ({"grade": GRADE | {"cuts": [0.5, 0.5, 4.0]}}, "ascend"),
        ({"grade": GRADE | {"cuts": [0.5, 1.3]}}, "unpack"),
        ({"grade": GRADE | {"weights": [1.0]}}, "weights"),
        ({"grade": {"weights": GRADE["weights"], "cuts": GRADE["cuts"]}}, "slope"),
        ({"features": [FEATURES[0] | {"measure": "ki67"}, *FEATURES[1:]]}, "ki67"),
        ({"features": [FEATURES[0] | {"low": 2.0, "high": 1.0}, *FEATURES[1:]]}, "low < high"),
        ({"features": [FEATURES[0] | {"transform": "cube"}, *FEATURES[1:]]}, "cube"),
        ({"features": [FEATURES[0] | {"transform": "log", "low": 0.0}, *FEATURES[1:]]}, "log"),
        ({"features": [FEATURES[0] | {"scale": 0.0}, *FEATURES[1:]]}, "scale"),
        ({"confusion": [[1.0, 0.0], [0.0, 1.0]]}, "confusion"),
        ({"confusion": np.full((5, 5), 0.3).tolist()}, "confusion"),
        ({"features": [FEATURES[0] | {"gain": 2}, *FEATURES[1:]]}, "gain"),
        ({"features": "dab"}, "membrane scorer"),
    ],
)
def test_a_wrong_description_is_a_classifier_error_that_names_the_file_and_the_field(tmp_path, fields, said):
    with pytest.raises(ClassifierError, match=rf"(?s)mine\.json.*{said}"):
        load_classifier(changed(tmp_path / "mine.json", **fields))


@pytest.mark.parametrize("field", ["kind", "classes", "modality", "mpp", "name", "patch_px", "features", "tumour"])
def test_a_missing_field_is_named(tmp_path, field):
    described = json.loads(BUNDLED)
    del described[field]
    (tmp_path / "mine.json").write_text(json.dumps(described))
    with pytest.raises(ClassifierError, match=rf"mine\.json.*'{field}' is missing"):
        load_classifier(tmp_path / "mine.json")


_BUNDLED = json.loads((resources.files("wsi_her2.models.membrane") / "coefficients.json").read_bytes())


@pytest.mark.parametrize(
    "wrong",
    [
        {"grade": _BUNDLED["grade"] | {"slope": -3.0}},
        {"grade": _BUNDLED["grade"] | {"slope": float("nan")}},
        {"grade": _BUNDLED["grade"] | {"cuts": [0.5, 1.3, float("inf")]}},
        {"tumour": _BUNDLED["tumour"] | {"intercept": float("nan")}},
        {"tumour": []},
        {"tumour": None},
        {"mpp": 0},
        {"mpp": float("nan")},
        {"mpp": None},
        {"patch_px": 0},
        {"features": [], "tumour": {"intercept": 0, "weights": []}},
        {"features": 3},
        {"card": 3},
    ],
    ids=str,
)
def test_numbers_that_cannot_score_are_refused_with_the_name_of_the_file(tmp_path, wrong):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(_BUNDLED | wrong))
    with pytest.raises(ClassifierError, match=r"mine\.json"):
        load_classifier(file)


@pytest.mark.parametrize("asked", [{"runtime": "onnx"}, {"precision": "int8"}])
def test_a_runtime_or_precision_that_it_does_not_have_is_refused(asked):
    with pytest.raises(ClassifierError, match="auto"):
        load_classifier("membrane", **asked)
