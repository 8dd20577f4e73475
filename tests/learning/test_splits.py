"""No split ever puts a patient on two sides, and a split on disk is of its data set or refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_her2.errors import DatasetError
from wsi_her2.learning.datasets import Dataset, Example, combine, read_bci, read_breakhis, read_folder
from wsi_her2.learning.datasets.origins import InMemory
from wsi_her2.learning.splits import (
    Split,
    check_split,
    class_counts,
    k_folds,
    read_split,
    split_by_group,
    write_split,
)

PIXEL = InMemory(np.zeros((1, 1, 3), np.uint8))
CLASSES = ("0", "1+", "2+", "3+")
ALL = {"train": 0.6, "validation": 0.2, "test": 0.2}


def made(rows, name="made"):
    """A data set of (group, label, published part)."""
    examples = tuple(
        Example(f"e{number}", name, group, label, PIXEL, "ihc", part)
        for number, (group, label, part) in enumerate(rows)
    )
    return Dataset(name, CLASSES, "ihc", examples)


labels = st.sampled_from(CLASSES) | st.tuples(*[st.floats(0.01, 1)] * 4).map(
    lambda s: tuple(x / sum(s) for x in s)
)
groups = st.integers(0, 11).map(lambda number: f"p{number}")
unpublished = st.lists(st.tuples(groups, labels, st.none()), min_size=1, max_size=60)


def parts_of_groups(dataset, split):
    parts = {}
    for group, part in zip(dataset.groups, split.parts, strict=True):
        parts.setdefault(group, set()).add(part)
    return parts


@given(rows=unpublished, seed=st.integers(0, 2**32), stratify=st.booleans())
def test_no_group_is_ever_in_two_parts_and_every_example_is_in_one(rows, seed, stratify):
    dataset = made(rows)
    if len(set(dataset.groups)) < 3:
        with pytest.raises(DatasetError, match="cannot fill 3 parts"):
            split_by_group(dataset, ALL, seed, stratify=stratify)
        return
    split = split_by_group(dataset, ALL, seed, stratify=stratify)
    assert all(len(parts) == 1 for parts in parts_of_groups(dataset, split).values())
    assert set(split.parts) == {"train", "validation", "test"}
    whole = np.concatenate([split.indices(part) for part in ("train", "validation", "test")])
    assert sorted(whole) == list(range(len(dataset)))


@given(rows=unpublished, seed=st.integers(0, 2**32), data=st.data())
def test_the_order_of_the_examples_does_not_matter(rows, seed, data):
    dataset = made(rows)
    if len(set(dataset.groups)) < 3:
        return
    order = data.draw(st.permutations(range(len(dataset))))
    shuffled = dataset.subset(order)
    one, other = split_by_group(dataset, ALL, seed), split_by_group(shuffled, ALL, seed)
    assert dict(zip(dataset.ids, one.parts, strict=True)) == dict(zip(shuffled.ids, other.parts, strict=True))


@given(first=unpublished, second=unpublished, seed=st.integers(0, 99))
def test_a_group_that_occurs_in_two_data_sets_is_one_group(first, second, seed):
    joined = combine([made(first, "one"), made(second, "two")])
    if len(set(joined.groups)) < 3:
        return
    assert all(len(parts) == 1 for parts in parts_of_groups(joined, split_by_group(joined, ALL, seed)).values())


@given(
    parts=st.lists(st.sampled_from(["train", "validation", "test", None]), min_size=8, max_size=12),
    rows=unpublished,
    seed=st.integers(0, 99),
)
def test_what_was_published_as_test_is_test_and_never_anything_else(parts, rows, seed):
    part_of = {f"p{number}": part for number, part in enumerate(parts)}
    dataset = made([(group, label, part_of.get(group)) for group, label, _ in rows])
    try:
        split = split_by_group(dataset, ALL, seed)
    except DatasetError as error:
        assert "cannot fill" in str(error)  # noqa: PT017 - only some examples raise
        return
    is_published = {part for example in dataset.examples if (part := example.part)}
    for example, part in zip(dataset.examples, split.parts, strict=True):
        if example.part in ("test", "validation"):
            assert part == example.part
        if example.part == "train" and part != "train":
            assert part not in is_published
    assert all(len(each) == 1 for each in parts_of_groups(dataset, split).values())


@given(rows=unpublished, k=st.integers(2, 5), seed=st.integers(0, 99))
def test_each_group_is_held_out_in_exactly_one_fold(rows, k, seed):
    dataset = made(rows)
    if len(set(dataset.groups)) < k:
        with pytest.raises(DatasetError, match="cannot be held out"):
            k_folds(dataset, k, seed)
        return
    folds = k_folds(dataset, k, seed)
    held_out = np.concatenate([fold.indices("validation") for fold in folds])
    assert sorted(held_out) == list(range(len(dataset)))
    for fold in folds:
        assert all(len(parts) == 1 for parts in parts_of_groups(dataset, fold).values())
        assert set(fold.parts) == {"train", "validation"}


def even(patients=40, each=5):
    return made([(f"p{n:02}", CLASSES[n % 4], None) for n in range(patients) for _ in range(each)])


def test_classes_are_spread_as_the_fractions_ask():
    dataset = even()
    counts = class_counts(dataset, split_by_group(dataset, ALL, 3))
    assert counts.loc["train", list(CLASSES)].tolist() == [30, 30, 30, 30]
    assert counts.loc["validation", list(CLASSES)].tolist() == [10, 10, 10, 10]
    assert counts.loc["test", ["examples", "groups"]].tolist() == [40, 8]


def test_a_rare_class_gets_into_every_part_if_enough_patients_have_it():
    rows = [(f"p{n}", "3+" if n < 3 else "0", None) for n in range(60) for _ in range(1 + n % 7)]
    dataset = made(rows)
    for seed in range(10):
        counts = class_counts(dataset, split_by_group(dataset, ALL, seed))
        assert (counts["3+"] > 0).all()


def test_groups_of_very_different_size_still_meet_the_fractions():
    rng = np.random.default_rng(4)
    rows = [(f"p{n}", CLASSES[n % 4], None) for n in range(50) for _ in range(int(rng.integers(1, 80)))]
    dataset = made(rows)
    counts = class_counts(dataset, split_by_group(dataset, ALL, 0))
    shares = counts["examples"] / len(dataset)
    assert shares.tolist() == pytest.approx([0.6, 0.2, 0.2], abs=0.04)


def test_seeds_give_different_splits_and_one_seed_the_same():
    dataset = even()
    assert split_by_group(dataset, ALL, 1).parts == split_by_group(dataset, ALL, 1).parts
    assert split_by_group(dataset, ALL, 1).parts != split_by_group(dataset, ALL, 2).parts


def test_without_stratifying_only_the_number_of_examples_counts():
    counts = class_counts(even(), split_by_group(even(), ALL, 1, stratify=False))
    assert counts["examples"].tolist() == [120, 40, 40]


def test_bci_keeps_its_test_part_and_the_published_folder_its_validation(miniatures):
    bci = read_bci(miniatures["bci"], size=(96, 96)).dataset
    split = split_by_group(bci, ALL, 1)
    assert [bci.examples[i].part for i in split.indices("test")] == ["test"] * 8
    folder = read_folder(miniatures["published"]).dataset
    split = split_by_group(folder, ALL, 1)
    assert [folder.examples[i].part for i in split.indices("validation")] == ["validation"] * 8
    assert {folder.examples[i].part for i in split.indices("test")} == {"train"}


def test_a_published_split_that_shares_patients_is_refused_unless_it_is_given_up(miniatures):
    folder = read_folder(miniatures["published"], group_pattern=r"^slide\d+").dataset
    with pytest.raises(DatasetError, match="shares patients"):
        split_by_group(folder, ALL)
    split = split_by_group(folder, ALL, published=False)
    assert all(len(parts) == 1 for parts in parts_of_groups(folder, split).values())
    torn = made([("p1", "0", "test"), ("p1", "0", "train"), ("p2", "0", "train"), ("p3", "0", "train")])
    with pytest.raises(DatasetError, match="test part and in another"):
        k_folds(torn, 2)
    assert len(k_folds(torn, 2, published=False)) == 2


def test_breakhis_is_split_by_patient(miniatures):
    dataset = read_breakhis(miniatures["breakhis"], size=None).dataset
    split = split_by_group(dataset, {"train": 0.75, "test": 0.25}, 2)
    assert not set(split.parts) - {"train", "test"}
    counts = class_counts(dataset, split)
    assert (counts.loc[["train", "test"], ["benign", "malignant"]] > 0).all(axis=None)


def test_folds_leave_a_published_test_part_out(miniatures):
    dataset = read_bci(miniatures["bci"], size=(96, 96)).dataset
    for fold in k_folds(dataset, 3, 1):
        assert [dataset.examples[i].part for i in fold.indices("test")] == ["test"] * 8
    with pytest.raises(DatasetError, match="train on it"):
        k_folds(dataset, 3, held_out="test")


def test_folds_to_report_on_choose_on_something_else():
    dataset = even()
    folds = k_folds(dataset, 4, 1, held_out="test", validation=0.2)
    assert sorted(np.concatenate([fold.indices("test") for fold in folds])) == list(range(len(dataset)))
    for fold in folds:
        assert (class_counts(dataset, fold)[list(CLASSES)] > 0).all(axis=None)
        assert check_split(dataset, fold) == ()


@pytest.mark.parametrize(
    ("k", "options"), [(1, {}), (3, {"validation": 0.2}), (3, {"held_out": "test", "validation": 1.0})]
)
def test_folds_that_make_no_sense_are_refused(k, options):
    with pytest.raises(ValueError, match="k is 2 or more"):
        k_folds(even(), k, **options)


@pytest.mark.parametrize(
    "fractions",
    [{"train": 0.5, "test": 0.4}, {"train": 1.2, "test": -0.2}, {"validation": 1.0}, {"train": 0.5, "tests": 0.5}],
)
def test_fractions_that_make_no_sense_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions"):
        split_by_group(even(), fractions)


def test_missing_classes_empty_parts_and_uneven_shares_are_said():
    dataset = made([("p0", "0", None)] * 30 + [("p1", "1+", None), ("p2", "2+", None)])
    findings = check_split(dataset, split_by_group(dataset, ALL))
    assert {finding.code for finding in findings} == {"class-missing", "share-off"}
    published = made([("p0", "0", "train"), ("p1", "1+", "test")])
    findings = check_split(published, split_by_group(published, {"train": 0.5, "test": 0.5}))
    assert any("no example of 1+" in finding.message for finding in findings)
    only_train = Split(("train",) * 2, 0, {"fractions": {"train": 0.5, "test": 0.5}})
    assert "empty-part" in {finding.code for finding in check_split(published, only_train)}


def test_a_split_that_leaks_is_an_error():
    dataset = made([("p0", "0", None), ("p0", "0", None)])
    with pytest.raises(DatasetError, match="'p0' is in train and in test"):
        check_split(dataset, Split(("train", "test"), 0, {}))


@given(rows=unpublished, data=st.data())
def test_a_split_read_back_is_the_one_that_was_written(tmp_path_factory, rows, data):
    dataset = made(rows)
    if len(set(dataset.groups)) < 3:
        return
    path = tmp_path_factory.mktemp("split") / "split.csv"
    split = split_by_group(dataset, ALL, 9)
    header = json.loads(write_split(split, dataset, path).read_text())
    assert header["seed"] == 9
    assert header["dataset"] == dataset.describe()
    shuffled = dataset.subset(data.draw(st.permutations(range(len(dataset)))))
    read = read_split(path, shuffled)
    assert dict(zip(shuffled.ids, read.parts, strict=True)) == dict(zip(dataset.ids, split.parts, strict=True))
    assert (read.seed, read.method) == (split.seed, split.method)


def test_the_file_is_the_same_whatever_the_order_and_can_be_read_by_people(tmp_path):
    dataset = even(4, 1)
    split = split_by_group(dataset, {"train": 0.5, "test": 0.5}, 1)
    write_split(split, dataset, tmp_path / "a.csv")
    turned = dataset.subset(reversed(range(4)))
    write_split(Split(split.parts[::-1], split.seed, split.method), turned, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.csv").read_text().startswith("id,part,group,label\ne0,")


def test_identifiers_with_commas_quotes_and_line_breaks_come_back(tmp_path):
    dataset = even(4, 1)
    names = ('a,"b"', "line\nbreak", "id", "é 染色")
    odd = replace(dataset, examples=tuple(replace(e, id=n) for e, n in zip(dataset.examples, names, strict=True)))
    split = split_by_group(odd, {"train": 0.5, "test": 0.5}, 1)
    write_split(split, odd, tmp_path / "s.csv")
    assert read_split(tmp_path / "s.csv", odd).parts == split.parts


def test_a_changed_data_set_is_refused_with_what_changed(tmp_path):
    dataset = even(8, 1)
    write_split(split_by_group(dataset, ALL, 1), dataset, tmp_path / "s.csv")

    def changed(index, **what):
        examples = list(dataset.examples)
        examples[index] = replace(examples[index], **what)
        return replace(dataset, examples=tuple(examples))

    for other, words in (
        (dataset.subset(range(7)), r"1 examples are gone \(e7\)"),
        (changed(2, id="new"), r"1 examples are gone \(e2\); 1 examples are new \(new\)"),
        (changed(2, label="3+"), r"1 examples have another label \(e2\)"),
        (changed(2, group="p07"), r"1 examples have another group \(e2\)"),
        (replace(dataset, classes=CLASSES[::-1]), r"classes were 0, 1\+, 2\+, 3\+, are 3\+, 2\+, 1\+, 0"),
    ):
        with pytest.raises(DatasetError, match=words):
            read_split(tmp_path / "s.csv", other)


def test_an_edited_missing_or_foreign_split_is_refused(tmp_path):
    dataset = even(8, 1)
    path = tmp_path / "s.csv"
    with pytest.raises(DatasetError, match="cannot be read as a split"):
        read_split(path, dataset)
    header = write_split(split_by_group(dataset, ALL, 1), dataset, path)
    content = header.read_text()
    header.write_text(content.replace('"layout": 1', '"layout": 2'))
    with pytest.raises(DatasetError, match="layout 2"):
        read_split(path, dataset)
    header.write_text(content)
    path.write_text(path.read_text().replace(",test,", ",train,"))
    with pytest.raises(DatasetError, match="edited"):
        read_split(path, dataset)
    header.unlink()
    with pytest.raises(DatasetError, match=r"s\.json"):
        read_split(path, dataset)
