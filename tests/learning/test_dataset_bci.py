"""BCI is read as published; what is wrong with the files is said, and the rest is used."""

import shutil

import numpy as np
import pytest
from PIL import Image

from wsi_her2.errors import DatasetError
from wsi_her2.learning.datasets import read_bci
from wsi_her2.learning.splits import split_by_group

SIZE = (96, 96)


def picture(folder, name):
    return next(folder.glob(f"*/{name}")) if "/" not in name else folder / name


def test_every_patch_has_its_score_its_part_and_its_pair_as_group(miniatures, found):
    reading = read_bci(miniatures["bci"], size=SIZE)
    assert reading.findings == ()
    made = reading.dataset
    assert made.classes == ("0", "1+", "2+", "3+")
    assert (made.modality, made.mpp, len(made)) == ("ihc", None, 32)
    first = made.examples[made.ids.index("IHC/test/00000_test_0.png")]
    assert (first.label, first.part, first.group, first.source) == ("0", "test", "bci-test-00000", "bci")
    assert made.read(0).shape == (96, 96, 3)
    assert sum(example.part == "test" for example in made.examples) == 8


def test_the_two_stains_of_a_place_are_one_group_and_look_different(miniatures):
    ihc = read_bci(miniatures["bci"], size=SIZE).dataset
    he = read_bci(miniatures["bci"], size=SIZE, modality="he").dataset
    assert sorted(ihc.groups) == sorted(he.groups)
    assert np.abs(ihc.read(0).astype(int) - he.read(0)).mean() > 5


def test_binary_grouping_puts_2_and_3_with_the_positive(miniatures):
    made = read_bci(miniatures["bci"], size=SIZE, grouping="binary").dataset
    assert made.classes == ("negative", "positive")
    for example in made.examples:
        assert example.label == ("positive" if example.id[-6:-4] in ("2+", "3+") else "negative")


def test_the_folder_above_is_found_through(bci, tmp_path):
    (tmp_path / "download").mkdir()
    shutil.move(bci, tmp_path / "download" / "BCI_dataset")
    assert len(read_bci(tmp_path / "download", size=SIZE).dataset) == 32


def test_the_ihc_name_decides_when_the_names_of_a_pair_disagree(bci, found):
    (bci / "HE/train/00000_train_0.png").rename(bci / "HE/train/00000_train_3+.png")
    for modality in ("ihc", "he"):
        reading = read_bci(bci, size=SIZE, modality=modality)
        (finding,) = found(reading, "label-disagreement")
        assert (finding.severity, "the IHC name counts" in finding.message) == ("warning", True)
        labels = dict(zip(reading.dataset.groups, reading.dataset.examples, strict=True))
        assert labels["bci-train-00000"].label == "0"
    by_he = read_bci(bci, size=SIZE, label_from="he").dataset
    assert dict(zip(by_he.groups, by_he.examples, strict=True))["bci-train-00000"].label == "3+"


def test_a_patch_without_a_partner_is_kept_with_its_own_score(bci, found):
    (bci / "HE/train/00003_train_0.png").unlink()
    (bci / "IHC/train/00004_train_0.png").unlink()
    reading = read_bci(bci, size=SIZE)
    assert sorted(finding.path.name for finding in found(reading, "pair-missing")) == [
        "00003_train_0.png",
        "00004_train_0.png",
    ]
    assert len(reading.dataset) == 31
    he = read_bci(bci, size=SIZE, modality="he").dataset
    assert he.examples[he.groups.index("bci-train-00004")].label == "0"


def test_misnamed_misplaced_and_doubly_numbered_files_are_left_out_by_name(bci, found):
    (bci / "IHC/train/00000_train_0.png").rename(bci / "IHC/train/patch one.png")
    (bci / "IHC/train/00001_train_0.png").rename(bci / "IHC/train/00001_test_0.png")
    shutil.copy(bci / "IHC/train/00002_train_0.png", bci / "IHC/train/00002_train_1+.png")
    reading = read_bci(bci, size=SIZE)
    assert [finding.path.name for finding in found(reading, "misnamed-file")] == ["patch one.png"]
    assert "00001_train_2+.png" in found(reading, "misnamed-file")[0].message
    assert [finding.path.name for finding in found(reading, "part-disagreement")] == ["00001_test_0.png"]
    assert "00002_train_1+.png" in found(reading, "duplicate-number")[0].message
    assert len(reading.dataset) == 29


@pytest.mark.parametrize("thorough", [False, True])
def test_unreadable_images_are_named_and_the_others_kept(bci, found, thorough):
    cut_off = bci / "IHC/train/00000_train_0.png"
    cut_off.write_bytes(cut_off.read_bytes()[:4000])
    (bci / "IHC/test/00000_test_0.png").write_bytes(b"")
    (bci / "IHC/test/00001_test_0.png").write_bytes(b"<html>404</html>")
    reading = read_bci(bci, size=SIZE, thorough=thorough)
    assert {finding.path.name for finding in found(reading, "unreadable-image")} == {
        "00000_train_0.png",
        "00000_test_0.png",
        "00001_test_0.png",
    }
    assert len(reading.dataset) == 29
    assert {finding.severity for finding in reading.errors} == {"error"}


def test_damage_inside_a_file_is_found_when_it_is_looked_for(bci, found):
    path = bci / "IHC/train/00000_train_0.png"
    content = bytearray(path.read_bytes())
    content[4000:4400] = bytes(400)
    path.write_bytes(content)
    assert not found(read_bci(bci, size=SIZE), "unreadable-image")
    assert [f.path for f in found(read_bci(bci, size=SIZE, thorough=True), "unreadable-image")] == [path]
    made = read_bci(bci, size=SIZE).dataset
    with pytest.raises(DatasetError, match="00000_train_0"):
        made.read(made.groups.index("bci-train-00000"))


def test_an_unexpected_size_is_one_warning_for_all_and_keeps_them(bci, found):
    (finding,) = found(read_bci(bci), "unexpected-size")
    assert "32 images are 96 x 96 px instead of 1024 x 1024" in finding.message
    path = bci / "IHC/train/00000_train_0.png"
    Image.open(path).resize((48, 50)).save(path)
    reading = read_bci(bci, size=None)
    assert "1 images are 48 x 50" in found(reading, "unexpected-size")[0].message
    assert len(reading.dataset) == 32


def test_a_copy_of_a_test_picture_among_the_training_ones_is_left_out_of_training(bci, found):
    shutil.copy(bci / "IHC/test/00000_test_0.png", bci / "IHC/train/00000_train_0.png")
    reading = read_bci(bci, size=SIZE)
    (finding,) = found(reading, "duplicate-image")
    assert finding.path.name == "00000_train_0.png"
    assert "test part" in finding.message
    assert "bci-test-00000" in reading.dataset.groups
    assert "bci-train-00000" not in reading.dataset.groups


def test_a_copy_that_was_written_anew_is_found_when_pixels_are_compared(bci, found):
    target = bci / "IHC/train/00000_train_0.png"
    Image.open(bci / "IHC/test/00000_test_0.png").save(target, compress_level=1)
    assert not found(read_bci(bci, size=SIZE), "duplicate-image")
    assert [f.path for f in found(read_bci(bci, size=SIZE, thorough=True), "duplicate-image")] == [target]


def test_equal_pictures_with_different_labels_are_all_left_out(bci, found):
    shutil.copy(bci / "IHC/train/00000_train_0.png", bci / "IHC/train/00006_train_1+.png")
    reading = read_bci(bci, size=SIZE)
    assert len(found(reading, "duplicate-label")) == 2
    assert len(reading.dataset) == 30


def test_a_class_without_examples_is_said(bci, found):
    for path in bci.glob("*/*/*_3+.png"):
        path.unlink()
    assert "'3+'" in found(read_bci(bci, size=SIZE), "empty-class")[0].message


def test_missing_and_foreign_folders_and_files_are_said(bci, found):
    shutil.rmtree(bci / "HE")
    shutil.rmtree(bci / "IHC/test")
    (bci / "IHC/val").mkdir()
    (bci / "IHC/train/readme.txt").write_text("hello")
    (bci / "IHC/train/.DS_Store").write_text("hidden")
    reading = read_bci(bci, size=SIZE)
    assert {finding.path.name for finding in found(reading, "missing-folder")} == {"HE", "test"}
    assert found(reading, "unknown-folder")[0].path.name == "val"
    assert "readme.txt" in found(reading, "not-an-image")[0].message
    assert len(reading.dataset) == 24


def test_nothing_usable_is_an_error_with_all_findings(bci, tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_bci(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="HE/train"):
        read_bci(tmp_path / "empty")
    for path in bci.glob("IHC/*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="and 12 more") as caught:
        read_bci(bci, size=SIZE)
    assert len(caught.value.findings) == 32


def test_an_unknown_grouping_is_refused(miniatures):
    with pytest.raises(ValueError, match="grades, binary"):
        read_bci(miniatures["bci"], grouping="three")


def test_the_published_test_part_stays_and_validation_comes_out_of_training(miniatures):
    made = read_bci(miniatures["bci"], size=SIZE).dataset
    split = split_by_group(made, {"train": 0.75, "validation": 0.25}, seed=1)
    parts = dict(zip(made.ids, split.parts, strict=True))
    assert {parts[id_] for id_ in made.ids if "/test/" in id_} == {"test"}
    assert {parts[id_] for id_ in made.ids if "/train/" in id_} == {"train", "validation"}
