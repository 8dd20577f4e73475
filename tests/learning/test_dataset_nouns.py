"""What every data set is: labelled pictures, read lazily, sent to any process, joined by group."""

import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from wsi_her2.errors import DatasetError, HER2Error
from wsi_her2.learning.datasets import Dataset, Example, PatchPlan, combine, read_bci, read_folder, read_warwick
from wsi_her2.learning.datasets.images import read_image
from wsi_her2.learning.datasets.origins import ImageFile, InMemory

GREY = np.full((4, 5, 3), 120, np.uint8)


def example(number, label="a", **changed):
    return replace(Example(f"e{number}", "made", f"g{number}", label, InMemory(GREY), "ihc"), **changed)


def dataset(*examples, classes=("a", "b"), **changed):
    return Dataset("made", classes, "ihc", tuple(examples), **changed)


def test_targets_are_one_hot_for_classes_and_shares_for_soft_labels():
    made = dataset(example(0, "b"), example(1, (0.25, 0.75)))
    assert made.targets.dtype == np.float32
    np.testing.assert_allclose(made.targets, [[0, 1], [0.25, 0.75]])
    assert len(made) == 2
    assert made.groups == ("g0", "g1")
    assert made.ids == ("e0", "e1")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("c", "not one of a, b"),
        ((0.5, 0.2, 0.3), "3 shares for 2 classes"),
        ((0.9, 0.3), "add up to 1"),
        ((1.5, -0.5), "from 0 on"),
        ((float("nan"), 1.0), "numbers"),
    ],
)
def test_a_wrong_label_is_refused_with_the_example_and_the_reason(label, words):
    with pytest.raises(DatasetError, match=words) as caught:
        dataset(example(7, label))
    assert "e7" in str(caught.value)


def test_identifiers_and_classes_must_differ_and_the_modality_must_agree():
    with pytest.raises(DatasetError, match="twice"):
        dataset(example(1), example(1))
    with pytest.raises(DatasetError, match="classes"):
        dataset(example(1), classes=("a", "a"))
    with pytest.raises(DatasetError, match="is he"):
        dataset(example(1, modality="he"))


def test_a_dataset_error_is_also_a_value_error():
    assert issubclass(DatasetError, HER2Error)
    assert issubclass(DatasetError, ValueError)


def test_examples_and_data_sets_are_frozen():
    with pytest.raises(FrozenInstanceError):
        example(1).label = "b"
    with pytest.raises(FrozenInstanceError):
        dataset(example(1)).name = "other"


def test_the_scale_is_that_of_all_examples_or_none():
    assert dataset(example(1, mpp=0.5), example(2, mpp=0.5)).mpp == 0.5
    assert dataset(example(1, mpp=0.5), example(2, mpp=0.25)).mpp is None
    assert dataset(example(1, mpp=0.5), example(2)).mpp is None


def test_white_point_correction_maps_known_glass_to_255_and_leaves_the_rest():
    made = dataset(example(1, white_point=(120.0, 240.0, 240.0)), example(2), white_corrected=True)
    assert made.read(0)[0, 0].tolist() == [255, 128, 128]
    assert made.read(1)[0, 0].tolist() == [120, 120, 120]
    assert replace(made, white_corrected=False).read(0)[0, 0].tolist() == [120, 120, 120]


def test_what_is_read_can_be_changed_without_changing_the_data_set():
    made = dataset(example(1))
    made.read(0)[:] = 0
    assert made.read(0).min() == 120


def test_a_subset_keeps_the_order_asked_for():
    made = dataset(example(0), example(1), example(2))
    assert made.subset(np.array([2, 0])).ids == ("e2", "e0")


def test_combined_data_sets_keep_groups_and_lay_labels_on_the_common_classes():
    first = replace(dataset(example(0, "b"), example(1, (0.25, 0.75))), name="one")
    second = Dataset("two", ("b", "c"), "ihc", (example(0, (0.4, 0.6)),))
    joined = combine([first, second], classes=("c", "b", "a"))
    assert joined.ids == ("one:e0", "one:e1", "two:e0")
    assert joined.groups == ("g0", "g1", "g0")
    np.testing.assert_allclose(joined.targets, [[0, 1, 0], [0, 0.75, 0.25], [0.6, 0.4, 0]])


def test_combining_what_does_not_fit_says_what_to_do():
    one, two = dataset(example(0)), dataset(example(0), classes=("b", "a"))
    with pytest.raises(DatasetError, match="name="):
        combine([one, one])
    with pytest.raises(DatasetError, match="classes="):
        combine([one, replace(two, name="two")])
    with pytest.raises(DatasetError, match="modality"):
        combine([one, Dataset("he", ("a", "b"), "he", ())])
    with pytest.raises(DatasetError, match="no data set"):
        combine([])


def test_the_description_changes_with_labels_and_groups_and_not_with_the_order():
    made = dataset(example(0), example(1, "b"))
    assert made.describe() == dataset(example(1, "b"), example(0)).describe()
    assert made.describe()["sha256"] != dataset(example(0), example(1)).describe()["sha256"]
    assert made.describe()["sha256"] != dataset(example(0), example(1, "b", group="g0")).describe()["sha256"]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_read_the_same_pixels_of_a_data_set_that_was_read_before(miniatures, start):
    slides = read_warwick(
        miniatures["warwick"] / "slides", miniatures["warwick"] / "ground_truth.csv", plan=PatchPlan(64, 0.5)
    ).dataset
    some = slides.subset(range(0, len(slides), 40))
    here = [some.read(index) for index in range(len(some))]
    with ProcessPoolExecutor(2, get_context(start)) as pool:
        there = list(pool.map(some.read, range(len(some))))
    np.testing.assert_array_equal(here, there)


def test_threads_read_the_same_pixels(miniatures):
    images = read_bci(miniatures["bci"], size=(96, 96)).dataset
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(images.read, range(len(images))))
    np.testing.assert_array_equal(read, [images.read(index) for index in range(len(images))])


def test_a_data_set_of_files_is_pickled_without_pixels(miniatures):
    images = read_bci(miniatures["bci"], size=(96, 96)).dataset
    images.read(0)
    content = pickle.dumps(images)
    assert len(content) < 400 * len(images)
    assert pickle.loads(content).ids == images.ids


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", (77, 77, 77)), ("P", None), ("RGBA", (255, 255, 255)), ("LA", (255, 255, 255)), ("1", (255, 255, 255))],
)
def test_every_eight_bit_kind_of_image_becomes_rgb_with_transparency_over_white(tmp_path, mode, expected):
    path = tmp_path / "x.png"
    fill = {"L": 77, "P": 3, "RGBA": (9, 9, 9, 0), "LA": (9, 0), "1": 1}[mode]
    Image.new(mode, (6, 4), fill).save(path)
    rgb = read_image(path)
    assert rgb.shape == (4, 6, 3)
    assert rgb.dtype == np.uint8
    if expected is not None:
        assert tuple(rgb[0, 0]) == expected


def test_sixteen_bit_images_are_refused_when_the_folder_is_read(tmp_path, published, found):
    Image.fromarray(np.full((96, 96), 4000, np.uint16)).save(published / "Train" / "1" / "deep.png")
    reading = read_folder(published, group_pattern=".*")
    assert [finding.path.name for finding in found(reading, "unreadable-image")] == ["deep.png"]
    assert "eight bits" in found(reading, "unreadable-image")[0].message


def test_a_file_that_vanished_is_named_when_it_is_read(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.png"):
        ImageFile(tmp_path / "gone.png").read()
