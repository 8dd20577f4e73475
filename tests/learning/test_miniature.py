"""Miniature data sets have the names and folders of the real ones, and are the same every time."""

import numpy as np
import pytest
from PIL import Image

from wsi_her2.learning.miniature import make_miniatures
from wsi_her2.models.membrane.measures import MEASURES, measure_patches


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_named_as_in_the_real_data_sets(miniatures):
    names = {kind: sorted(contents(folder)) for kind, folder in miniatures.items()}
    assert "IHC/train/00000_train_0.png" in names["bci"]
    assert "HE/test/00007_test_3+.png" in names["bci"]
    tree = "BreaKHis_v1/histology_slides/breast/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-3000AB/40X"
    assert f"{tree}/SOB_M_DC-14-3000AB-40-001.png" in names["breakhis"]
    assert {"ground_truth.csv", "slides/8_HE.tif", "slides/8_HER2.tif"} <= set(names["warwick"])
    assert {name.rsplit("/", 1)[0] for name in names["published"]} == {
        f"{part}/{grade}" for part in ("Train", "Validation") for grade in range(4)
    }


def test_the_same_seed_makes_the_same_files(tmp_path):
    one, two, other = (
        make_miniatures(tmp_path / name, kinds=("published",), per_class=4, seed=seed)["published"]
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert contents(one) == contents(two)
    assert contents(one) != contents(other)


def test_higher_scores_stain_stronger(miniatures):
    strength = []
    for grade in range(4):
        paths = sorted((miniatures["published"] / "Train" / str(grade)).glob("*.png"))
        patches = np.stack([np.asarray(Image.open(path)) for path in paths])
        strength.append(measure_patches(patches)[:, MEASURES.index("ridge_p95")].mean())
    assert strength == sorted(strength)


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no_such"):
        make_miniatures(tmp_path, kinds=("no_such",))
    with pytest.raises(ValueError, match="4 or more"):
        make_miniatures(tmp_path, per_class=1)
