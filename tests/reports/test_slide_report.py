import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.reports.conftest import summary_of
from wsi_her2.reports.heatmap import draw_layer
from wsi_her2.reports.review_words import ReportedReview
from wsi_her2.reports.slide_content import slide_content
from wsi_her2.reports.slide_report import write_slide_report
from wsi_her2.scoring.call import call_slide
from wsi_her2.scoring.gate import GateReason
from wsi_her2.scoring.result import ModelInfo
from wsi_her2.scoring.rule import Thresholds
from wsi_her2.scoring.second_opinion import compare_calls


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and text outside of script and style."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.words, self.inside = [], [], ""
        self.feed(source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else self.inside

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if not self.inside:
            self.words.append(data)


@pytest.fixture
def report(scored, tmp_path):
    def write(result, examples=None, **more):
        layer = draw_layer(scored.mask, scored.store, scored.classes)
        content = slide_content(result, scored.mask, layer, examples or {}, **more)
        write_slide_report(tmp_path / "report.html", content)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def called(scored, percentages):
    counts = np.rint(np.asarray(percentages) * 10).astype(int)
    return call_slide(np.repeat(np.eye(4, dtype=np.float32), counts, axis=0), ("0", "1+", "2+", "3+"))


@pytest.mark.parametrize(
    ("percentages", "words"),
    [
        ((100, 0, 0, 0), ["HER2 negative", "Not HER2-low"]),
        ((95, 5, 0, 0), ["HER2 negative", "HER2-ultralow"]),
        ((70, 30, 0, 0), ["HER2 negative", "HER2-low (IHC 1+)"]),
        ((40, 20, 36.8, 3.2), ["HER2 equivocal: reflex ISH", "HER2-low if ISH is negative"]),
        ((0, 10, 40, 50), ["HER2 positive"]),
    ],
)
def test_the_call_stands_in_plain_words(scored, make_result, report, percentages, words):
    call = called(scored, percentages)
    text = Page(report(make_result(call=call))).text
    for expected in (*words, call.explanation, f"{call.margin_points:.1f} percentage points of the tumour would"):
        assert expected in text


def test_the_rule_says_why_and_why_not_the_other_scores(scored, make_result, report):
    text = Page(report(make_result(call=called(scored, (40, 20, 36.8, 3.2))))).text
    assert "3.2 % stains intensely and completely: not met" in text
    assert "60.0 % stains at all: met, but 2+ ranks higher" in text
    assert "40.0 % stains completely, 3.2 % of the tumour intensely: this score" in text


def test_reasons_are_not_invented_where_the_thresholds_are_not_those_of_the_call(scored, make_result, report):
    text = Page(
        report(make_result(call=called(scored, (40, 20, 36.8, 3.2))), thresholds=Thresholds(equivocal_over_pct=60))
    ).text
    assert "complete_over_limit" in text
    assert "Asks for" not in text


def test_nothing_is_requested(make_result, report):
    page = Page(report(make_result(), {"3+": [(1, 2, np.zeros((16, 16, 3), np.uint8))]}))
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'; img-src data:;" in policy
    assert "url(" not in report(make_result())


def test_a_hostile_name_stays_a_name(make_result, report, hostile):
    reason = GateReason("code", hostile, 1, 2)
    model = ModelInfo(hostile, "ab", ("0", "1+", "2+", "3+"), 128, 0.5, {"trained_on": hostile})
    source = report(
        make_result(slide_id=hostile, path=hostile, model=model, gate=(reason,), calibration="lab:" + hostile)
    )
    page = Page(source)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "alert('x')" not in source
    assert page.text.count("<script>alert('x')</script> \"=1+1\" {{7*7}} 🙂 é") >= 5


def test_research_use_only_and_what_the_model_rests_on_stand_before_the_percentages(make_result, report):
    text = Page(report(make_result())).text
    end = text.index("Percentages of the tumour")
    for statement in ("Research use only", "nothing at all", "Validated no", "Uncalibrated: DAB scale differs"):
        assert text.index(statement) < end


def test_a_model_without_a_card_is_said_to_say_nothing(make_result, report):
    bare = ModelInfo("net", "ab", ("0", "1+", "2+", "3+"), 128, 0.5)
    assert "does not say on what it was trained or validated" in Page(report(make_result(model=bare))).text


def test_a_calibrated_call_names_its_profile_and_is_not_called_uncalibrated(make_result, report):
    text = Page(report(make_result(calibration="lab:City Hospital"))).text
    assert "Calibrated with the laboratory profile City Hospital" in text
    assert "Uncalibrated" not in text


def test_the_file_is_the_same_on_every_run(make_result, report):
    assert report(make_result(timings_s={"read": 1.0})) == report(make_result(timings_s={"read": 99.0}))


def test_examples_are_shown_by_class_with_their_level_0_coordinates(make_result, report):
    patches = [(4711 + i, 815, np.full((600, 600, 3), i, np.uint8)) for i in range(20)]
    source = report(make_result(), {"2+": patches, "other": patches[:1]})
    assert source.count("data:image/jpeg") == 1 + 6 + 1
    assert "x 4711, y 815" in source


def test_the_reasons_of_the_gate_have_measured_value_and_limit(scored, make_result, tmp_path):
    result = make_result(
        status="not_assessable",
        reason="out of focus",
        call=None,
        gate=(GateReason("out_of_focus", "blurred", 0.0712, 0.11),),
    )
    write_slide_report(tmp_path / "r.html", slide_content(result, scored.mask, None, {}))
    text = Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "Not assessable No score is given" in text
    assert "blurred (out_of_focus) 0.0712 0.11" in text
    assert "Percentages of the tumour" not in text


def test_a_failed_slide_has_a_report_with_its_reason(make_result, tmp_path):
    failed = make_result(
        status="failed",
        reason="cannot be opened: copy it again",
        call=None,
        reader=None,
        white_point=None,
        stain=None,
    )
    write_slide_report(tmp_path / "r.html", slide_content(failed, None, None, {}))
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "cannot be opened: copy it again" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_a_model_that_only_tells_negative_from_positive_has_a_report(make_result, report):
    eye = np.repeat(np.eye(2, dtype=np.float32), (70, 30), axis=0)
    model = ModelInfo("net", "ab", ("negative", "positive"), 224, 0.5)
    text = Page(report(make_result(call=call_slide(eye, ("negative", "positive")), model=model))).text
    assert "HER2 positive" in text
    assert "H-score" not in text.split("Limits of the method")[0].replace("the H-score ranks", "")


def test_the_controls_are_hidden_until_the_script_runs(make_result, report):
    assert re.search(r'id="tools" hidden', report(make_result()))


def test_a_report_stays_small(scored, make_result, report):
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    finer = replace(
        scored.mask.overview, rgb=np.random.default_rng(1).integers(90, 240, (1875, 2500, 3), np.uint8)
    )
    many = {name: [(0, 0, noise)] * 50 for name in scored.classes}
    assert len(report(make_result(), many, picture=finer)) < 6e6, "even of pure noise, which no slide is"


# Reviews

REVIEW = ReportedReview("overrule", "1+", "2+", "Dr Ö", "2025-03-04T05:06:07Z", "border case", "a & <b>b</b>")


def test_a_review_stands_before_the_percentages_and_is_no_markup(make_result, report):
    source = report(make_result(), review=REVIEW)
    page = Page(source)
    said = page.text[: page.text.index("Percentages of the tumour")]
    for words in ("Reviewed: 1+ instead of 2+", "Dr Ö", "2025-03-04 05:06:07 UTC", "border case", "a & <b>b</b>"):
        assert words in said
    assert [tag for tag, _ in page.tags].count("b") == [tag for tag, _ in Page(report(make_result())).tags].count(
        "b"
    )
    assert "scored anew" not in source


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"verdict": "agree", "score": "2+"}, "Reviewed: 2+, as called"),
        ({"verdict": "agree", "score": None, "called": "positive"}, "Reviewed: positive, as called"),
        ({"verdict": "unsure", "score": None}, "Reviewed: undecided (called 2+)"),
        ({"called": None}, "Reviewed: 1+ instead of no call"),
        ({"rescored": "0"}, "Within drawn regions the software gives 0"),
        ({"earlier": ("2+ by Dr P",) * 6}, "2+ by Dr P; 2+ by Dr P; 2+ by Dr P; 2+ by Dr P; and 2 more"),
        ({"is_of_earlier_result": True}, "scored anew since: this review says nothing of the call above"),
    ],
)
def test_what_a_review_says(make_result, report, changed, words):
    assert words in Page(report(make_result(), review=replace(REVIEW, **changed))).text


def test_a_slide_that_nobody_reviewed_says_nothing_of_a_review(make_result, report):
    source = report(make_result())
    assert "Reviewed" not in source
    assert 'class="review"' not in source


# Places


def test_a_field_says_where_it_is_for_the_viewer_and_a_file_has_no_link(make_result, report):
    patches = [(4711, 815, np.zeros((64, 64, 3), np.uint8))]
    page = Page(report(make_result(), {"2+": patches}))
    side = round(128 * 0.5 / 0.2523456789)
    (place,) = [attributes for tag, attributes in page.tags if "data-side" in attributes]
    assert place == {"data-x": "4711", "data-y": "815", "data-side": str(side)}
    assert all("href" not in attributes for _, attributes in page.tags)


# Counted cells


def from_cells(make_result, *counts, second=None, **changed):
    """A result whose call was made from counted cells."""
    cells = summary_of(*counts)
    return make_result(
        call=cells.call,
        call_from="cells",
        cells=cells,
        pct_complete_membrane=cells.pct_complete_membrane,
        second_opinion=None if second is None else compare_calls(cells.call, second, "patches", 5.0),
        **changed,
    )


def test_counted_cells_say_how_many_where_and_how_many_are_complete(make_result, report):
    result = from_cells(make_result, 400, 300, 200, 100, tumour_patches=40)
    text = Page(report(result)).text
    assert "1,000 tumour cells in 12 patches that may hold tumour, 0.25 mm²" in text
    assert "Complete membrane staining, whatever its intensity: 30.0 %" in text
    for value in ("0 40.0 %", "1+ 30.0 %", "2+ 20.0 %", "3+ 10.0 %"):
        assert value in text
    assert "fitted on digital phantoms" in text.split("Percentages of the tumour")[0]


def test_all_of_the_tumour_is_said_to_be_all(make_result, report):
    cells = summary_of(40, 30, 20, 10, sampling="all", patches=40)
    text = Page(report(make_result(cells=cells, call_from="patches"))).text
    assert "in all 40 patches that may hold tumour" in text


def test_percentages_of_patches_stand_beside_those_of_cells_only_where_the_call_is_of_patches(
    scored, make_result, report
):
    of_patches = make_result(cells=summary_of(40, 30, 20, 10), call_from="patches")
    text = Page(report(of_patches)).text.split("Counted cells")[-1]
    assert f"40.0 % 40.0 to 40.0 {scored.call.percentages['0']:.1f} %" in text
    text = Page(report(from_cells(make_result, 40, 30, 20, 10))).text.split("Counted cells")[-1]
    assert "40.0 % 40.0 to 40.0 1+" in text


def test_what_is_counted_decides_what_is_said_of_the_limits(make_result, report):
    of_cells = Page(report(from_cells(make_result, 40, 30, 20, 10))).text
    of_patches = Page(report(make_result(call_from="patches"))).text
    assert "found by their nuclei" in of_cells
    assert "found by their nuclei" not in of_patches
    assert "percentages are of tissue in patches" in of_patches
    assert "percentages are of tissue in patches" not in of_cells


def test_a_second_opinion_stands_beside_the_call_and_a_disagreement_calls_for_review(make_result, report):
    agreeing = from_cells(make_result, 0, 100, 100, 800, second=summary_of(0, 0, 10, 90).call)
    text = Page(report(agreeing)).text
    assert "The classifier's patches give 3+ as well" in text
    assert "Needs review" not in text
    apart = from_cells(make_result, 0, 100, 100, 800, second=summary_of(100, 0, 0, 0).call)
    page = Page(report(apart))
    assert "Needs review. The classifier's patches give 0: the two ways disagree" in page.text
    assert page.text.index("Needs review") < page.text.index("Percentages of the tumour")
    assert [attributes for _, attributes in page.tags if attributes.get("role") == "alert"]


def test_fields_of_counted_cells_are_shown_with_their_level_0_coordinates(make_result, report):
    views = [(4711, 815 + number, np.full((448, 896, 3), 60 * number, np.uint8)) for number in range(4)]
    source = report(from_cells(make_result, 40, 30, 20, 10), cell_views=views)
    assert source.count("data:image/jpeg") == 1 + 4
    assert "x 4711, y 818" in Page(source).text
    without = report(make_result(), cell_views=views)
    assert without.count("data:image/jpeg") == 1, "fields without cells say nothing"


def test_another_scale_of_dab_is_said_to_change_the_call_only_where_it_does(make_result, report):
    text = Page(report(from_cells(make_result, 0, 100, 100, 800))).text
    assert "With all DAB weaker or stronger by a factor of 1.3 the cells would still give 3+" in text
    unsure = replace(summary_of(40, 30, 20, 10), weaker_score="1+", stronger_score="3+")
    text = Page(report(make_result(call=unsure.call, call_from="cells", cells=unsure))).text
    assert "weaker by a factor of 1.3 the cells would give 1+, with all DAB stronger by as much 3+" in text


def test_what_was_counted_and_what_was_left_out_stand_in_the_report(scored, make_result, report):
    result = from_cells(make_result, 40, 30, 20, 10, n_patches=60, tumour_patches=40, unreadable_fraction=0.05)
    text = Page(report(result)).text
    assert "Counted 40 patches of tumour; cells in 12 that may hold tumour" in text
    assert "Left out 20 patches that are not tumour" in text
    assert "Left out 5.0 % of the patches, which cannot be decoded" in text


def test_a_slide_without_cells_says_nothing_of_them(make_result, report):
    text = Page(report(make_result(call_from="patches"))).text
    for words in ("tumour cells", "Second opinion", "Needs review", "complete membrane"):
        assert words not in text
