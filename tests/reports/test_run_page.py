import re
from dataclasses import replace
from html import unescape
from urllib.parse import unquote

from wsi_her2.reports.run_page import write_run_page
from wsi_her2.scoring.result import SlideResult


def written(folder, results, run=None):
    write_run_page(folder / "index.html", results, run or {})
    return (folder / "index.html").read_text(encoding="utf-8")


def failed(result: SlideResult, slide_id="broken", reason="cannot be opened"):
    return replace(result, slide_id=slide_id, status="failed", reason=reason, call=None)


def test_slides_are_counted_by_call_and_status(make_result, scored, tmp_path):
    result = make_result()
    source = written(tmp_path, [result, result, failed(result)])
    counts = re.findall(r'<li><span class="chip"[^>]*>([^<]+)</span><b>([^<]+)</b>', source)
    assert counts == [(scored.call.score, "2"), ("failed", "1")]


def test_each_slide_has_one_row_and_failures_their_reason(make_result, tmp_path):
    source = written(tmp_path, [make_result(slide_id=f"s{i}") for i in range(5)] + [failed(make_result())])
    assert source.count("<tr data-k=") == 6
    assert "cannot be opened" in source


def test_links_lead_to_files_that_are_there_and_survive_odd_names(make_result, tmp_path):
    odd = "a b#c?d%20 'q' 🙂é"
    (tmp_path / odd).mkdir()
    for name in ("report.html", "heatmap.png"):
        (tmp_path / odd / name).write_bytes(b"x")
    source = written(tmp_path, [make_result(slide_id=odd), make_result(slide_id="no files")])
    links = [unescape(link) for link in re.findall(r'(?:href|src)="([^"]+)"', source)]
    assert [unquote(link) for link in links] == [f"{odd}/heatmap.png", f"{odd}/report.html"]
    assert all(re.fullmatch(r"[A-Za-z0-9%._/~-]+", link) for link in links)
    assert all((tmp_path / unquote(link)).is_file() for link in links)
    assert 'loading="lazy"' in source


def test_a_slide_id_cannot_point_out_of_the_folder(make_result, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "report.html").write_text("x")
    assert "href=" not in written(tmp_path / "run", [make_result(slide_id=".."), make_result(slide_id="../")])


def test_a_hostile_name_stays_a_name(make_result, tmp_path, hostile):
    result = failed(make_result(path=hostile), slide_id=hostile, reason=hostile)
    source = written(tmp_path, [result], {hostile: {"nested": hostile}, "plain": hostile})
    assert source.count("<script") == 1
    assert "alert('x')" not in source
    assert "{{7*7}}" in source


def test_research_use_only_stands_on_top_and_nothing_is_fetched_from_elsewhere(make_result, tmp_path):
    source = written(tmp_path, [make_result()])
    assert source.index("Research use only</strong>") < source.index("<main>")
    assert "default-src &#39;none&#39;" in source
    assert not re.search(r'(?:href|src)="(?:https?:)?//', source)


def test_all_rows_stand_there_without_javascript(make_result, tmp_path):
    source = written(tmp_path, [make_result()])
    assert 'id="tools" hidden' in source
    assert "<tbody hidden" not in source


def test_a_run_without_slides_has_a_page(tmp_path):
    assert "0 slides" in written(tmp_path, [])


def test_rows_of_ten_thousand_slides_are_compact(make_result, tmp_path):
    result = make_result()
    source = written(tmp_path, (replace(result, slide_id=f"slide {i}") for i in range(10_000)))
    assert source.count("<tr data-k=") == 10_000
    assert len(source) < 7e6
