"""BreakHis is known by its file names, in the published tree or any other."""

import shutil

import pytest

from wsi_her2.errors import DatasetError
from wsi_her2.learning.datasets import read_breakhis
from wsi_her2.learning.miniature import BREAKHIS_SIZE as SIZE


def one(folder, pattern):
    return sorted(folder.rglob(pattern))[0]


def test_the_published_tree_gives_tumour_patient_and_magnification(miniatures):
    reading = read_breakhis(miniatures["breakhis"], size=SIZE)
    assert reading.findings == ()
    made = reading.dataset
    assert (made.classes, made.modality, len(made)) == (("benign", "malignant"), "he", 64)
    example = next(each for each in made.examples if each.id.endswith("SOB_B_A-14-1000AB-40-001.png"))
    assert (example.label, example.group, example.magnification, example.mpp) == ("benign", "14-1000AB", 40, None)
    assert made.read(0).shape == (92, 140, 3)


def test_all_magnifications_of_a_patient_are_one_group(miniatures):
    made = read_breakhis(miniatures["breakhis"], size=SIZE).dataset
    assert len(set(made.groups)) == 8
    for group in set(made.groups):
        of_group = {each.magnification for each in made.examples if each.group == group}
        assert of_group == {40, 100, 200, 400}


def test_magnifications_are_chosen_and_may_be_given_a_scale(miniatures):
    made = read_breakhis(miniatures["breakhis"], size=SIZE, magnifications=[100, 400], mpp={100: 0.8}).dataset
    assert {(each.magnification, each.mpp) for each in made.examples} == {(100, 0.8), (400, None)}
    with pytest.raises(ValueError, match="magnifications"):
        read_breakhis(miniatures["breakhis"], magnifications=[63])
    with pytest.raises(ValueError, match="subtypes"):
        read_breakhis(miniatures["breakhis"], classes="eight")


def test_subtypes_are_eight_classes_and_those_without_pictures_are_said(miniatures, found):
    reading = read_breakhis(miniatures["breakhis"], size=SIZE, classes="subtypes", magnifications=[40])
    assert len(reading.dataset.classes) == 8
    assert {each.label for each in reading.dataset.examples} == {
        "adenosis",
        "fibroadenoma",
        "ductal_carcinoma",
        "mucinous_carcinoma",
    }
    assert len(found(reading, "empty-class")) == 4


def test_any_folder_of_files_so_named_will_do(miniatures, tmp_path):
    for path in miniatures["breakhis"].rglob("*-40-*.png"):
        shutil.copy(path, tmp_path / path.name)
    made = read_breakhis(tmp_path, size=SIZE).dataset
    assert len(made) == 16
    assert len(set(made.groups)) == 8


@pytest.mark.parametrize(
    "name",
    [
        "IMG_0001.png",
        "SOB_M_XX-14-2523-400-001.png",
        "SOB_B_DC-14-2523-400-001.png",
        "SOB_M_DC-14-2523-63-001.png",
    ],
)
def test_names_that_say_nothing_or_contradict_themselves_are_left_out(breakhis, found, name):
    one(breakhis, "*.png").rename(one(breakhis, "*.png").with_name(name))
    reading = read_breakhis(breakhis, size=SIZE)
    assert [finding.path.name for finding in found(reading, "misnamed-file")] == [name]
    assert len(reading.dataset) == 63


def test_a_file_in_the_folder_of_another_class_is_left_out(breakhis, found):
    benign, malignant = one(breakhis, "SOB_B_A-*-40-*.png"), one(breakhis, "SOB_M_DC-*-40-*.png")
    fibro, other_zoom = one(breakhis, "SOB_B_F-*-40-*.png"), one(breakhis, "SOB_B_F-*-100-*.png")
    shutil.move(malignant, benign.parent)
    shutil.move(fibro, benign.parent)
    shutil.move(other_zoom, fibro.parent)
    messages = sorted(f.message for f in found(read_breakhis(breakhis, size=SIZE), "label-disagreement"))
    assert len(messages) == 3
    assert "100x but lies in 40X" in messages[0]
    assert "fibroadenoma but lies in adenosis" in messages[1]
    assert "malignant but lies in benign" in messages[2]


def test_a_file_name_that_is_there_twice_counts_once(breakhis, found):
    path = one(breakhis, "*-40-*.png")
    (breakhis / "copy").mkdir()
    shutil.copy(path, breakhis / "copy")
    reading = read_breakhis(breakhis, size=SIZE)
    assert len(found(reading, "duplicate-name")) == 1
    assert len(reading.dataset) == 64


def test_a_patient_with_pictures_of_two_subtypes_stays_one_group(breakhis, tmp_path, found):
    for path in breakhis.rglob("*.png"):
        shutil.copy(path, tmp_path / path.name.replace("SOB_M_MC-14-4000AB", "SOB_M_MC-14-3000AB"))
    reading = read_breakhis(tmp_path, size=SIZE)
    assert "14-3000AB" in found(reading, "patient-of-two-classes")[0].message
    assert len({each.group for each in reading.dataset.examples}) == 7


def test_unreadable_and_equal_pictures_are_left_out_by_name(breakhis, found):
    first, second = sorted(breakhis.rglob("*-40-001.png"))[:2]
    first.write_bytes(first.read_bytes()[:500])
    copy = second.with_name(second.name.replace("-001", "-009"))
    shutil.copy(second, copy)
    reading = read_breakhis(breakhis, size=SIZE)
    assert [f.path for f in found(reading, "unreadable-image")] == [first]
    assert [f.path for f in found(reading, "duplicate-image")] == [copy]
    assert len(reading.dataset) == 63


def test_the_published_size_is_expected(miniatures, found):
    assert "instead of 700 x 460" in found(read_breakhis(miniatures["breakhis"]), "unexpected-size")[0].message


def test_nothing_usable_is_an_error_that_says_why(miniatures, tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_breakhis(tmp_path / "absent")
    with pytest.raises(DatasetError, match="nothing in"):
        read_breakhis(tmp_path)
    shutil.copy(one(miniatures["breakhis"], "*-40-*.png"), tmp_path)
    with pytest.raises(DatasetError, match="no picture at 400x"):
        read_breakhis(tmp_path, magnifications=[400])
