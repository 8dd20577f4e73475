"""Folders named by class, with or without parts above them."""

import shutil

import pytest

from wsi_her2.errors import DatasetError
from wsi_her2.learning.datasets import read_folder

BY_SLIDE = r"^slide\d+"


def flat(published, tmp_path, names):
    """The training part of the miniature as a flat folder of classes with other names."""
    for number, name in enumerate(names):
        shutil.copytree(published / "Train" / str(number), tmp_path / "flat" / name)
    return tmp_path / "flat"


def test_the_published_layout_gives_grades_and_parts(miniatures):
    reading = read_folder(miniatures["published"], group_pattern=BY_SLIDE, mpp=0.5)
    assert reading.findings == ()
    made = reading.dataset
    assert (made.classes, made.modality, made.mpp, len(made)) == (("0", "1+", "2+", "3+"), "ihc", 0.5, 32)
    first = made.examples[made.ids.index("Train/1/slide10_000.png")]
    assert (first.label, first.part, first.group) == ("1+", "train", "slide10")
    assert {each.part for each in made.examples} == {"train", "validation"}


def test_without_a_pattern_every_picture_stands_alone_and_that_is_said(miniatures, found):
    reading = read_folder(miniatures["published"])
    assert len(set(reading.dataset.groups)) == 32
    assert "group_pattern" in found(reading, "no-groups")[0].message


@pytest.mark.parametrize("names", [("0", "1+", "2+", "3+"), ("0+", "1", "2", "3"), ("0", "1", "2", "3")])
def test_folders_that_mean_grades_become_grades(published, tmp_path, names):
    made = read_folder(flat(published, tmp_path, names)).dataset
    assert made.classes == ("0", "1+", "2+", "3+")
    assert {each.part for each in made.examples} == {None}


def test_other_comes_first_and_unknown_names_come_last_in_order(published, tmp_path):
    made = read_folder(flat(published, tmp_path, ("3+", "other", "necrosis", "artefact"))).dataset
    assert made.classes == ("other", "0", "1+", "2+", "3+", "artefact", "necrosis")


def test_names_that_mean_no_grade_stay_as_they_are(published, tmp_path):
    assert read_folder(flat(published, tmp_path, ("negative", "positive"))).dataset.classes == (
        "negative",
        "positive",
    )


def test_two_folders_of_one_grade_are_put_together_and_that_is_said(published, tmp_path, found):
    folder = flat(published, tmp_path, ("0", "1", "1+", "3"))
    reading = read_folder(folder)
    assert "1, 1+ all mean 1+" in found(reading, "merged-folders")[0].message


def test_classes_can_be_chosen_and_folders_of_others_are_left_out(miniatures, found):
    reading = read_folder(miniatures["published"], classes=("3+", "0"))
    assert reading.dataset.classes == ("3+", "0")
    assert len(found(reading, "unknown-class")) == 2
    assert {each.label for each in reading.dataset.examples} == {"0", "3+"}


@pytest.mark.parametrize("name", ["val", "valid", "VALIDATION"])
def test_parts_go_by_many_names(published, name):
    (published / "Validation").rename(published / name)
    assert {each.part for each in read_folder(published).dataset.examples} == {"train", "validation"}


def test_what_does_not_belong_is_said_and_passed_over(published, found):
    picture = next((published / "Train/0").glob("*.png"))
    shutil.copy(picture, published / "Train" / "loose.png")
    shutil.copy(picture, published / "lost.png")
    shutil.copytree(published / "Train/0", published / "Extra")
    (published / "Train/0/notes.csv").write_text("a,b")
    shutil.rmtree(published / "Validation/3")
    (published / "Validation/3").mkdir()
    reading = read_folder(published)
    assert len(found(reading, "loose-images")) == 2
    assert found(reading, "unknown-folder")[0].path.name == "Extra"
    assert "notes.csv" in found(reading, "not-an-image")[0].message
    assert found(reading, "empty-class")[0].path.name == "3"
    assert len(reading.dataset) == 30


def test_a_name_in_which_the_pattern_finds_nothing_is_left_out(published, found):
    path = next((published / "Train/0").glob("*.png"))
    path.rename(path.with_name("unnamed.png"))
    reading = read_folder(published, group_pattern=r"slide(\d+)")
    assert found(reading, "no-group")[0].path.name == "unnamed.png"
    assert len(reading.dataset) == 31
    with pytest.raises(ValueError, match="regular expression"):
        read_folder(published, group_pattern="slide(")


def test_the_same_picture_in_training_and_validation_stays_only_in_validation(published, found):
    path = next((published / "Validation/2").glob("*.png"))
    shutil.copy(path, published / "Train/2/again.png")
    reading = read_folder(published)
    assert found(reading, "duplicate-image")[0].path.name == "again.png"
    assert "validation part" in found(reading, "duplicate-image")[0].message


def test_a_file_name_in_any_script_keeps_a_stable_identifier(published):
    path = next((published / "Train/0").glob("*.png"))
    path.rename(path.with_name("Präparat 染色 é.png"))
    assert "Train/0/Präparat 染色 é.png" in read_folder(published).dataset.ids


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_folder(tmp_path / "absent")
    with pytest.raises(DatasetError, match="no folders of classes"):
        read_folder(tmp_path)
