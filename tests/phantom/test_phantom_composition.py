"""What is asked for is checked, and what is drawn is what was asked for."""

import numpy as np
import pytest

from wsi_her2.errors import HER2Error
from wsi_her2.phantom import PhantomError, PhantomSpec, make_phantom, score_of_fractions
from wsi_her2.phantom.cells import largest_remainder
from wsi_her2.phantom.tissue import Tissue, draw_architecture

SMALL = {"width_mm": 0.7, "height_mm": 0.7, "mpp": 0.5, "look": "oesophagus_tma"}


@pytest.mark.parametrize(
    ("shares", "score"),
    [
        ((1.0, 0.0, 0.0, 0.0), "0"),
        ((0.90, 0.10, 0.0, 0.0), "0"),
        ((0.88, 0.12, 0.0, 0.0), "1+"),
        ((0.5, 0.4, 0.10, 0.0), "1+"),
        ((0.5, 0.38, 0.12, 0.0), "2+"),
        ((0.92, 0.0, 0.0, 0.08), "2+"),
        ((0.90, 0.0, 0.0, 0.10), "2+"),
        ((0.88, 0.0, 0.0, 0.12), "3+"),
    ],
)
def test_the_rule_of_the_guideline(shares, score):
    assert score_of_fractions(shares) == score


@pytest.mark.parametrize("share", [0.08, 0.10, 0.12])
@pytest.mark.parametrize(("her2", "below", "above"), [(1, "0", "1+"), (2, "0", "2+"), (3, "2+", "3+")])
def test_slides_at_the_borders_come_out_as_asked(share, her2, below, above):
    shares = [0.0] * 4
    shares[her2], shares[0] = share, 1 - share
    phantom = make_phantom(PhantomSpec(score=None, class_fractions=tuple(shares), seed=3, **SMALL))
    truth = phantom.truth
    assert truth.score == (above if share > 0.10 else below)
    assert abs(truth.cell_counts[her2] - share * truth.tumour_cells) <= 1
    assert truth.percentages[her2] == pytest.approx(100 * share, abs=100 / truth.tumour_cells)


@pytest.mark.parametrize("clustering", [0.0, 1.0])
def test_clustering_moves_classes_but_does_not_change_their_counts(clustering):
    spec = PhantomSpec(score="2+", clustering=clustering, seed=5, **SMALL)
    phantom = make_phantom(spec)
    total = phantom.truth.tumour_cells
    assert np.array_equal(phantom.truth.cell_counts, largest_remainder(total, spec.fractions))
    tumour = phantom.cells[phantom.cells["kind"] == Tissue.INVASIVE]
    where = np.stack([tumour["x_um"], tumour["y_um"]], -1)
    distance = np.hypot(*(where[:, None] - where[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    same = (tumour["her2"] == tumour["her2"][distance.argmin(1)]).mean()
    by_chance = sum(f**2 for f in spec.fractions)
    assert same > by_chance + 0.2 if clustering else same < by_chance + 0.1


def test_ducts_and_controls_do_not_count():
    spec = PhantomSpec(
        score="0",
        in_situ_share=0.15,
        normal_share=0.1,
        control_tissue=True,
        seed=2,
        **(SMALL | {"width_mm": 1.0}),
    )
    phantom = make_phantom(spec)
    kinds = phantom.cells["kind"]
    for kind in (Tissue.IN_SITU, Tissue.NORMAL_DUCT, Tissue.CONTROL):
        assert (kinds == kind).sum() > 20, kind
    assert (phantom.cells["her2"][kinds == Tissue.CONTROL] == 3).any()
    assert phantom.truth.tumour_cells == (kinds == Tissue.INVASIVE).sum()
    assert phantom.truth.percentages[3] == 0


def test_membranes_keep_to_their_class():
    cells = make_phantom(PhantomSpec(score="3+", seed=1, **SMALL)).cells
    cells = cells[cells["kind"] == Tissue.INVASIVE]
    by_class = [cells[cells["her2"] == k] for k in range(4)]
    assert by_class[0]["completeness"].max() < 0.15
    assert by_class[0]["intensity"].max() < by_class[1]["intensity"].min()
    assert by_class[1]["completeness"].max() < 0.7
    assert by_class[2]["completeness"].min() >= 0.9 - 1e-6
    assert by_class[3]["completeness"].min() >= 0.9
    assert by_class[1]["intensity"].mean() < by_class[2]["intensity"].mean() < by_class[3]["intensity"].mean()


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("outline", ["core", "biopsy", "resection"])
def test_tumour_covers_about_the_share_asked_for(share, outline):
    spec = PhantomSpec(tumour_share=share, outline=outline, seed=7, width_mm=2, height_mm=1.5, mpp=1.0)
    truth = make_phantom(spec).truth
    assert truth.tumour_share == pytest.approx(share, abs=0.06)
    assert 0.2 < truth.tissue_mm2 < 3.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": "4+"},
        {"score": None},
        {"score": "3+", "class_fractions": (1.0, 0.0, 0.0, 0.0)},
        {"score": None, "class_fractions": (0.5, 0.5, 0.5, 0.5)},
        {"score": None, "class_fractions": (0.5, 0.5)},
        {"tumour_share": 0.95},
        {"tumour_share": float("nan")},
        {"mpp": 0.0},
        {"width_mm": 1000},
        {"look": "kodachrome"},
        {"outline": "star"},
        {"modality": "pas"},
        {"pattern": "plaid"},
        {"artefacts": ("coffee",)},
        {"clustering": 1.5},
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(PhantomError) as caught:
        PhantomSpec(**wrong)
    assert isinstance(caught.value, HER2Error)
    assert isinstance(caught.value, ValueError)


def test_largest_remainder_splits_exactly():
    assert largest_remainder(10, (0.25, 0.25, 0.25, 0.25)).tolist() == [3, 3, 2, 2]
    for total in (1, 7, 1000, 12345):
        parts = largest_remainder(total, (0.04, 0.08, 0.18, 0.70))
        assert parts.sum() == total
        assert np.abs(parts - np.array((0.04, 0.08, 0.18, 0.70)) * total).max() < 1


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_duct_of_which_a_field_shows_the_lumen_alone_is_drawn():
    spec = PhantomSpec(score="2+", width_mm=0.05, height_mm=0.05, mpp=0.5, seed=4)
    architecture = draw_architecture(spec, np.random.default_rng([spec.seed, 1]), filled=True)
    assert any(part.mask.all() for part in architecture.compartments), "else nothing is asked here"
    assert len(make_phantom(spec, filled=True).cells) == 0
