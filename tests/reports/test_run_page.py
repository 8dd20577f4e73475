import json
import re
import tracemalloc
from dataclasses import replace
from html import unescape
from urllib.parse import unquote

from wsi_her2.reports.run_page import FEW, PER_PAGE, write_run_page
from wsi_her2.reports.slide_table import SlideRow
from wsi_her2.scoring.result import SlideResult


def written(folder, results, run=None):
    write_run_page(folder / "index.html", map(SlideRow.of, results), run or {})
    return (folder / "index.html").read_text(encoding="utf-8")


def data_of(source):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', source, re.DOTALL)
    data = json.loads(text)
    return [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]


def plain_rows(source):
    return re.findall(r"<tr><td>.*</tr>", source)


def failed(result: SlideResult, slide_id="broken", reason="cannot be opened"):
    return replace(result, slide_id=slide_id, status="failed", reason=reason, call=None)


def test_slides_are_counted_by_call_and_status(make_result, scored, tmp_path):
    result = make_result()
    source = written(tmp_path, [result, result, failed(result)])
    counts = re.findall(r'<span class="chip"[^>]*>([^<]+)</span></span>.*?<b>([^<]+)</b>', source)
    assert counts == [(scored.call.score, "2"), ("failed", "1")]
    assert "2 scored · 1 failed" in source


def test_each_slide_has_one_row_and_failures_their_reason(make_result, tmp_path):
    source = written(tmp_path, [make_result(slide_id=f"s{i}") for i in range(5)] + [failed(make_result())])
    assert len(plain_rows(source)) == len(data_of(source)) == 6
    assert data_of(source)[5]["reason"] == "cannot be opened"
    assert "cannot be opened" in plain_rows(source)[5]


def test_why_slides_are_not_scored_is_counted_by_kind_and_leads_to_them(make_result, tmp_path):
    broken = [failed(make_result(path=f"/s/{i}.svs"), f"{i}", f"{i}.svs: tile {i} is cut off") for i in range(3)]
    source = written(tmp_path, [make_result(), *broken])
    ((address, count, shown),) = re.findall(
        r'<a href="#(cause=\w+)"><b>(\d+)</b><span[^>]*>([^<]*)</span>', source
    )
    assert (count, shown) == ("3", "tile … is cut off")
    assert f'["{address.removeprefix("cause=")}",' in source


def test_how_long_slides_took_is_said_in_one_place_of_its_own(make_result, tmp_path):
    slow, fast = (make_result(timings_s={"blocks": seconds}) for seconds in (30.0, 10.0))
    first = written(tmp_path, [slow, fast])
    (line,) = re.findall(r'<p id="work".*', first)
    assert "median 20 s" in line
    assert "180.0 slides an hour" in line
    # Everything else is the same for equal results.
    assert first.replace(line, "") == re.sub(r'<p id="work".*', "", written(tmp_path, [fast, slow]))
    assert 'id="work"' not in written(tmp_path, [make_result(timings_s={})])


def test_links_lead_to_files_that_are_there_and_survive_odd_names(make_result, tmp_path):
    odd = "a b#c?d%20 'q' 🙂é"
    (tmp_path / odd).mkdir()
    for name in ("report.html", "heatmap.png"):
        (tmp_path / odd / name).write_bytes(b"x")
    source = written(tmp_path, [make_result(slide_id=odd), make_result(slide_id="no files")])
    links = [unescape(link) for link in re.findall(r'(?:href|src)="([^"#]+)"', source)]
    assert [unquote(link) for link in links] == [f"{odd}/heatmap.png", f"{odd}/report.html"]
    assert all(re.fullmatch(r"[A-Za-z0-9%._/~-]+", link) for link in links)
    assert all((tmp_path / unquote(link)).is_file() for link in links)
    assert 'loading="lazy"' in source
    assert data_of(source)[1]["report"] == data_of(source)[1]["heatmap"] == ""


def test_the_table_is_linked_where_it_lies(make_result, tmp_path):
    assert 'href="slides.csv"' not in written(tmp_path, [make_result()])
    (tmp_path / "slides.csv").touch()
    assert 'href="slides.csv"' in written(tmp_path, [make_result()])


def test_a_slide_id_cannot_point_out_of_the_folder(make_result, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "report.html").write_text("x")
    assert "report.html" not in written(
        tmp_path / "run", [make_result(slide_id=".."), make_result(slide_id="../")]
    )


def test_a_hostile_name_stays_a_name(make_result, tmp_path, hostile):
    result = failed(make_result(path=hostile), slide_id=hostile, reason=hostile)
    source = written(tmp_path, [result], {hostile: {"nested": hostile}, "plain": hostile})
    assert source.count("<script") == source.count("</script") == 2
    assert "<script>alert" not in source
    assert data_of(source)[0]["slide"] == data_of(source)[0]["reason"] == hostile
    assert "{{7*7}}" in source


def test_data_can_neither_close_its_script_nor_open_a_comment(make_result, tmp_path):
    name = "</script><!--<script>\u2028\\u003c]]>&lt;\"'"
    source = written(tmp_path, [failed(make_result(path=name), slide_id=name, reason=name)])
    assert source.count("</script") == 2
    assert "<!--" not in source
    assert data_of(source)[0]["path"] == data_of(source)[0]["reason"] == name


def test_a_name_that_is_not_unicode_has_a_row_and_its_link(make_result, tmp_path):
    name = "caf\udce9"
    (tmp_path / name).mkdir()
    (tmp_path / name / "report.html").touch()
    source = written(tmp_path, [make_result(slide_id=name, path=f"/s/{name}.svs")])
    assert data_of(source)[0]["report"] == "caf%E9/report.html"
    assert data_of(source)[0]["slide"] == name


def test_research_use_only_stands_on_top_and_nothing_is_fetched_from_elsewhere(make_result, tmp_path):
    source = written(tmp_path, [make_result()])
    assert source.index("Research use only</strong>") < source.index("<main>")
    assert "default-src &#39;none&#39;" in source
    assert not re.search(r'(?:href|src)="(?:https?:)?//', source)


def test_without_javascript_few_slides_all_stand_there_and_of_many_the_first(make_result, tmp_path):
    results = [make_result(slide_id=f"s{i:04}") for i in range(FEW + 1)]
    few = written(tmp_path, results[:FEW])
    assert len(plain_rows(few)) == FEW
    assert "<noscript>" not in few
    many = written(tmp_path, results)
    assert len(plain_rows(many)) == PER_PAGE
    assert "s0000" in plain_rows(many)[0]
    assert re.search(r"<noscript>.*slides\.csv.*</noscript>", many)
    assert len(data_of(many)) == FEW + 1
    assert 'id="tools" hidden' in many


def test_a_run_without_slides_has_a_page(tmp_path):
    assert "0 slides" in written(tmp_path, [])


def test_ten_thousand_slides_are_compact_and_need_little_memory(make_result, tmp_path):
    row = SlideRow.of(make_result())
    written(tmp_path, [make_result()])
    tracemalloc.start()
    write_run_page(tmp_path / "index.html", (replace(row, slide_id=f"slide {i}") for i in range(10_000)), {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "index.html").stat().st_size < 3e6
    assert peak < 20e6
