"""The PDF of a slide: what it says can be read by a program, and nothing in it is live."""

import re
import unicodedata
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tests.reports.conftest import summary_of
from wsi_her2.reports import pdf_text
from wsi_her2.reports.heatmap import draw_layer
from wsi_her2.reports.pdf_text import pdf_font
from wsi_her2.reports.review_words import ReportedReview
from wsi_her2.reports.slide_content import slide_content
from wsi_her2.reports.slide_pdf import write_slide_pdf
from wsi_her2.scoring.gate import GateReason
from wsi_her2.scoring.result import ModelInfo

pytest.importorskip("reportlab", reason="the extra pdf")


class Pdf:
    """The words of a PDF, page by page, as a reader of it would copy them."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.objects = {
            int(number): body for number, body in re.findall(rb"(\d+) 0 obj\s(.*?)endobj", content, re.DOTALL)
        }
        self.fonts = {
            name: self._characters(int(number)) for name, number in re.findall(rb"/(F\d+\+\d+) (\d+) 0 R", content)
        }
        pages = [body for body in self.objects.values() if re.search(rb"/Type /Page\b", body)]
        self.pages = [self._words(int(re.search(rb"/Contents (\d+)", page)[1])) for page in pages]
        self.text = " ".join(self.pages)

    def _stream(self, number: int) -> bytes:
        body = self.objects[number]
        raw = re.search(rb"stream\r?\n(.*?)endstream", body, re.DOTALL)[1]
        if b"ASCII85Decode" in body:
            from base64 import a85decode

            raw = a85decode(raw.strip().removesuffix(b"~>"))
        return zlib.decompress(raw)

    def _characters(self, font: int) -> dict[int, str]:
        table = self._stream(int(re.search(rb"/ToUnicode (\d+)", self.objects[font])[1]))
        pairs = re.findall(rb"<([0-9A-Fa-f]{2})> <([0-9A-Fa-f]{4})>", table)
        return {int(byte, 16): chr(int(code, 16)) for byte, code in pairs}

    def _words(self, number: int) -> str:
        lines, font = [], {}
        tokens = rb"/(F\d+\+\d+) [\d.]+ Tf|\(((?:[^()\\]|\\.)*)\) Tj"
        for name, raw in re.findall(tokens, self._stream(number), re.DOTALL):
            if name:
                font = self.fonts[name]
            else:
                plain = re.sub(rb"\\(\d{3}|.)", self._unescaped, raw, flags=re.DOTALL)
                lines.append("".join(font[byte] for byte in plain))
        return " ".join(" ".join(lines).replace("\N{NO-BREAK SPACE}", " ").split())

    @staticmethod
    def _unescaped(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if code.isdigit() else {b"n": b"\n", b"r": b"\r", b"t": b"\t"}.get(code, code)


def unspaced(text: str) -> str:
    """Where a line breaks, and where a font's next subset begins, says nothing."""
    return "".join(text.split())


@pytest.fixture
def written(scored, tmp_path):
    def write(result, examples=None, **more):
        layer = draw_layer(scored.mask, scored.store, scored.classes) if result.call else None
        content = slide_content(result, scored.mask, layer, examples or {}, **more)
        write_slide_pdf(tmp_path / "report.pdf", content)
        return (tmp_path / "report.pdf").read_bytes()

    return write


def test_the_first_page_has_the_call_the_percentages_the_rule_and_what_the_model_rests_on(make_result, written):
    result = make_result()
    first = Pdf(written(result)).pages[0]
    assert "case 1" in first
    assert result.call.score in first
    assert result.call.explanation in first
    for name, value in result.call.percentages.items():
        assert f"{name} {value:.1f} %" in first
    for words in ("Asks for", "Uncalibrated: DAB scale differs", "Trained on nothing at all.", "Validated no."):
        assert words in first
    assert "Overview and heatmap" in first
    assert "0.2 mm" in first


def test_research_use_only_stands_on_every_page(make_result, written):
    pages = Pdf(written(make_result(), {"3+": [(1, 2, np.zeros((16, 16, 3), np.uint8))]})).pages
    assert len(pages) == 3
    assert all("RESEARCH USE ONLY Not a medical device. Not for diagnosis" in page for page in pages)


def test_fields_quality_and_provenance_stand_behind_it(make_result, written):
    cells = summary_of(400, 300, 200, 100)
    views = [(4711, 815 + number, np.full((448, 896, 3), 60 * number, np.uint8)) for number in range(4)]
    patch = (31, 47, np.zeros((256, 256, 3), np.uint8))
    result = make_result(call=cells.call, call_from="cells", cells=cells)
    pages = Pdf(written(result, {"2+": [patch] * 9}, cell_views=views)).pages
    assert pages[1].count("x 31, y 47") == 6
    assert "x 4711, y 818" in pages[1]
    assert "Left out" in pages[2]
    assert "cd" * 32 in pages[2]
    assert "Limits of the method" in pages[2]


def test_equal_results_give_equal_bytes_and_no_date(make_result, written):
    first = written(make_result(timings_s={"read": 1.0}))
    assert first == written(make_result(timings_s={"read": 99.0}))
    assert b"D:20000101000000+00'00'" in first


def test_a_review_stands_on_the_first_page(make_result, written):
    review = ReportedReview(
        "overrule",
        "1+",
        "2+",
        "Dr Ö",
        "2025-03-04T05:06:07Z",
        "cytoplasmic",
        "a & <b>b</b>",
        None,
        True,
        ("2+ by Dr P", "3+ by Dr Q"),
    )
    first = Pdf(written(make_result(), review=review)).pages[0]
    for words in (
        "Reviewed: 1+ instead of 2+",
        "Dr Ö",
        "2025-03-04 05:06:07 UTC",
        "a & <b>b</b>",
        "scored anew since",
        "2+ by Dr P; 3+ by Dr Q",
    ):
        assert unspaced(words) in unspaced(first)


def test_slides_without_a_call_have_a_pdf(scored, make_result, written, tmp_path):
    refused = make_result(
        status="not_assessable",
        reason="out of focus",
        call=None,
        gate=(GateReason("out_of_focus", "blurred", 0.0712, 0.11),),
    )
    assert "No score is given out of focus" in Pdf(written(refused)).text
    assert "blurred (out_of_focus) 0.0712 0.11" in Pdf(written(refused)).text
    failed = replace(
        refused, status="failed", reason="cut off", gate=(), reader=None, white_point=None, stain=None
    )
    write_slide_pdf(tmp_path / "failed.pdf", slide_content(failed, None, None, {}))
    assert "The slide could not be processed cut off" in Pdf((tmp_path / "failed.pdf").read_bytes()).text


def test_a_hostile_name_stays_a_name_and_nothing_in_the_file_is_live(make_result, written, hostile):
    name = hostile + "</para><a href='file:///etc/passwd'>x</a>) /JS (x"
    model = ModelInfo(name, "ab", ("0", "1+", "2+", "3+"), 128, 0.5, {"trained_on": name})
    content = written(make_result(slide_id=name, path=name, model=model, calibration="lab:" + name))
    text = unspaced(Pdf(content).text)
    assert text.count(unspaced("<script>alert('x')</script> \"=1+1\" {{7*7}} \\U0001f642 é</para>")) >= 6
    outside_of_strings = re.sub(rb"\((?:[^()\\]|\\.)*\)", b"", content)
    live = rb"/(JavaScript|JS|URI|Launch|OpenAction|AA|EmbeddedFile|SubmitForm|Annots)\b"
    assert re.findall(live, outside_of_strings) == []


@pytest.mark.parametrize(
    "name",
    [
        "日本",
        "नमस्ते",
        "Привет",
        "Ελλάδα",
        "שלום",
        "مرحبا",
        "a\u202eb",
        "a\u200bb",
        "caf\udce9",
        "🙂",
        "x" * 250,
        "a\nb",
    ],
)
def test_no_name_crashes_or_vanishes_whatever_its_script(make_result, written, name):
    text = unspaced(Pdf(written(make_result(slide_id=name))).text)
    assert unspaced(pdf_font().shown(name)) in text
    drawn = {unicodedata.category(character) for character in pdf_font().shown(name)}
    assert drawn.isdisjoint({"Cc", "Cf", "Cs", "Cn"})


def test_without_matplotlib_the_font_is_the_one_that_reportlab_brings(monkeypatch):
    monkeypatch.setattr(pdf_text, "find_spec", lambda name: None)
    assert [path.name for path in pdf_text._faces()] == ["Vera.ttf", "VeraBd.ttf"]
    font = pdf_font.__wrapped__()
    assert font.shown("Å µm² 2+ Привет") == "Å µm² 2+ " + "".join(f"\\u{ord(c):04x}" for c in "Привет")
