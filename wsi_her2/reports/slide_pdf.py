"""The report of one slide as PDF, A4: the call on the first page, what it rests on behind it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wsi_her2.atomic import write_bytes
from wsi_her2.models.extras import need
from wsi_her2.reports.chart import Chart
from wsi_her2.reports.heatmap import lay_over
from wsi_her2.reports.images import within
from wsi_her2.reports.pdf_text import PdfFont, pdf_font
from wsi_her2.reports.slide_content import ExampleGroup, Figure, Picture, SlideContent, Tile, Verdict

_MM = 72 / 25.4
_PAGE = (210 * _MM, 297 * _MM)
_MARGIN, _TOP, _BOTTOM = 15 * _MM, 15 * _MM, 14 * _MM
_FRAME = 6.0
"""What reportlab leaves free inside the margins."""
_WIDTH = _PAGE[0] - 2 * _MARGIN
_INK, _SOFT, _LINE, _WASH = "#16212c", "#4a5763", "#d6dce2", "#f5f7f9"
_WARN, _WARN_LINE, _WARN_INK = "#fff6e0", "#e3b95a", "#5c3d00"
_FIRED = "#eaf1f8"

_FIGURE_LEAST, _FIGURE_MOST = 45 * _MM, 95 * _MM
_FIGURE_PX, _FIGURE_QUALITY = 1200, 85
_EXAMPLE_PX = 160
_TILE = 21 * _MM
_VIEWS_BESIDE = 2

_RESEARCH = "Research use only"
_NO_DEVICE = "Not a medical device. Not for diagnosis or for the choice of treatment."


def write_slide_pdf(path: Path, content: SlideContent) -> None:
    """Write the report of a slide as PDF.

    Equal content gives equal bytes with one installation: there are no dates in it. A character that the font
    lacks is written as an escape.

    Parameters
    ----------
    path : pathlib.Path
    content : SlideContent

    Raises
    ------
    MissingExtra
        reportlab is not installed.
    """
    need("reportlab", "A PDF report")
    from reportlab.platypus import SimpleDocTemplate

    font = pdf_font()
    sheet = _Sheet(font)
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out,
        pagesize=_PAGE,
        leftMargin=_MARGIN - _FRAME,
        rightMargin=_MARGIN - _FRAME,
        topMargin=_TOP - _FRAME,
        bottomMargin=_BOTTOM - _FRAME,
        title=f"{font.shown(content.result.slide_id)}: HER2 report, research use only",
        author="",
        subject="",
        creator=f"wsi-her2 {font.shown(content.result.version)}",
        invariant=1,
        pageCompression=1,
        lang="en",
    )
    frame = _frame(font, content)
    document.build([*_first_page(sheet, content), *_behind(sheet, content)], onFirstPage=frame, onLaterPages=frame)
    write_bytes(path, out.getvalue())


class _Sheet:
    """The styles of a report, and the pieces that it is made of."""

    def __init__(self, font: PdfFont) -> None:
        self.font = font

    def text(self, text: str, size: float = 8.5, *, bold: bool = False, colour: str = _INK, align: int = 0) -> Any:
        """A paragraph; what it says is no markup."""
        return self.marked(self.font.markup(text), size, bold=bold, colour=colour, align=align)

    def marked(
        self, markup: str, size: float = 8.5, *, bold: bool = False, colour: str = _INK, align: int = 0
    ) -> Any:
        """A paragraph of reportlab's markup, in which all that comes from outside is escaped."""
        from reportlab.lib.styles import ParagraphStyle
        from reportlab.platypus import Paragraph

        style = ParagraphStyle(
            "text",
            fontName=self.font.bold if bold else self.font.regular,
            fontSize=size,
            leading=1.28 * size,
            textColor=colour,
            alignment=align,
            # A name without a space must not run off the page.
            splitLongWords=1,
        )
        return Paragraph(markup, style)

    def bold(self, label: str, text: str) -> str:
        """Markup of a label and what it labels."""
        return f"<b>{self.font.markup(label)}</b> {self.font.markup(text)}"

    def heading(self, text: str) -> Any:
        """A heading that stays with what follows."""
        from reportlab.lib.styles import ParagraphStyle
        from reportlab.platypus import Paragraph

        style = ParagraphStyle(
            "heading",
            fontName=self.font.bold,
            fontSize=10.5,
            leading=13,
            textColor=_INK,
            spaceBefore=9,
            spaceAfter=4,
            keepWithNext=1,
        )
        return Paragraph(self.font.markup(text), style)

    def table(self, rows: Sequence[Sequence[Any]], widths: Sequence[float], *more: tuple[Any, ...]) -> Any:
        """A table without padding at its left edge, ruled between its rows."""
        from reportlab.platypus import Table

        style = [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (0, -1), 0),
            ("LEFTPADDING", (1, 0), (-1, -1), 6),
            ("RIGHTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
            ("LINEBELOW", (0, 0), (-1, -1), 0.4, _colour(_LINE)),
        ]
        return Table(rows, colWidths=list(widths), style=[*style, *more], hAlign="LEFT")

    def beside(self, rows: Sequence[Sequence[Any]], widths: Sequence[float]) -> Any:
        """Things side by side, with nothing drawn around them."""
        from reportlab.platypus import Table

        style = [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
        ]
        return Table(rows, colWidths=list(widths), style=style, hAlign="LEFT")

    def named(self, rows: Iterable[tuple[str, str]], label_width: float = 42 * _MM) -> list[Any]:
        """Rows of a label and a text."""
        lines = [[self.text(label, 8, colour=_SOFT), self.text(text, 8)] for label, text in rows]
        return [self.table(lines, (label_width, _WIDTH - label_width))] if lines else []

    def box(self, inside: Sequence[Any], ground: str, line: str) -> Any:
        """A frame around paragraphs."""
        from reportlab.platypus import Table

        return Table(
            [[list(inside)]],
            colWidths=[_WIDTH],
            style=[
                ("BACKGROUND", (0, 0), (-1, -1), _colour(ground)),
                ("BOX", (0, 0), (-1, -1), 0.7, _colour(line)),
                ("LEFTPADDING", (0, 0), (-1, -1), 8),
                ("RIGHTPADDING", (0, 0), (-1, -1), 8),
                ("TOPPADDING", (0, 0), (-1, -1), 4),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
            ],
            hAlign="LEFT",
        )

    def warning(self, markup: str) -> Any:
        """What must not be overlooked."""
        return self.box([self.marked(markup, colour=_WARN_INK)], _WARN, _WARN_LINE)


def _first_page(sheet: _Sheet, content: SlideContent) -> list[Any]:
    font = sheet.font
    story: list[Any] = [
        sheet.text("HER2 report of one slide", 8.5, colour=_SOFT),
        sheet.text(content.result.slide_id, 14, bold=True),
        _gap(6),
        _call_box(sheet, content),
    ]
    if content.review is not None:
        review = content.review
        said = [sheet.text(review.headline, 11, bold=True)]
        said.append(sheet.marked(" &nbsp; ".join(sheet.bold(label, text) for label, text in review.rows)))
        if review.warning:
            said.append(sheet.text(review.warning, bold=True, colour=_WARN_INK))
        story += [_gap(4), sheet.box(said, _FIRED, "#9dbfe0")]
    if content.second is not None and content.second.review:
        story += [_gap(4), sheet.warning(sheet.bold("Needs review.", f"{content.second.explanation}."))]
    story += [_gap(4), _rests_on(sheet, content)]
    if content.gate:
        assessable = content.result.status != "not_assessable"
        story.append(sheet.heading("Why caution is due" if assessable else "Why it is not assessable"))
        rows = [[sheet.text(t, 8, colour=_SOFT) for t in ("Reason", "Measured", "Limit")]]
        for reason in content.gate:
            words = f"{font.markup(reason.message)} <font color='{_SOFT}'>({font.markup(reason.code)})</font>"
            rows.append([sheet.marked(words), sheet.text(reason.measured), sheet.text(reason.limit)])
        story.append(sheet.table(rows, (_WIDTH - 48 * _MM, 24 * _MM, 24 * _MM)))
    if content.verdict is not None:
        story += _percentages_and_rule(sheet, content, content.verdict)
    if content.figure is not None:
        story += _figure(sheet, content, content.figure, _height_left(story))
    return story


def _height_left(story: Iterable[Any]) -> float:
    """What is left of a page behind flowables."""
    used: float = sum(
        flowable.wrap(_WIDTH, _PAGE[1])[1] + flowable.getSpaceBefore() + flowable.getSpaceAfter()
        for flowable in story
    )
    return _PAGE[1] - _TOP - _BOTTOM - used


def _rests_on(sheet: _Sheet, content: SlideContent) -> Any:
    """Whose scale the call stands on, and what the model was trained on: before any percentage."""
    said = [sheet.marked(f"<b>{sheet.font.markup(content.calibration)}</b>")] if content.calibration else []
    first = [sheet.bold(label, f"{text}.") for label, text in content.card_on_top]
    name = sheet.bold("Model", f"{content.result.model.name}.")
    said.append(sheet.marked(" ".join([name, *first])))
    return sheet.box(said, _WARN, _WARN_LINE)


def _call_box(sheet: _Sheet, content: SlideContent) -> Any:
    from reportlab.platypus import Table

    verdict, font = content.verdict, sheet.font
    if verdict is None:
        no_score = content.result.status == "not_assessable"
        label, ground, ink, size = content.status, "#e9edf1", _INK, 13.0
        said = [
            sheet.text("No score is given" if no_score else "The slide could not be processed", 14, bold=True),
            sheet.text(content.result.reason, 9),
        ]
    else:
        label, ground, ink = verdict.label, verdict.colour, verdict.ink
        size = 46.0 if verdict.is_score else 15.0
        said = [sheet.text(verdict.group, 15, bold=True)]
        said += [sheet.text(verdict.her2_low, 9.5)] if verdict.her2_low else []
        said += [_gap(2), *_facts(sheet, content, verdict)]
    mark = sheet.marked(f"{font.markup(label)}", size, bold=True, colour=ink, align=1)
    width = 40 * _MM
    return Table(
        [[mark, said]],
        colWidths=[width, _WIDTH - width],
        style=[
            ("BACKGROUND", (0, 0), (0, 0), _colour(ground)),
            ("BOX", (0, 0), (-1, -1), 0.7, _colour(_LINE)),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ("LEFTPADDING", (0, 0), (0, 0), 4),
            ("RIGHTPADDING", (0, 0), (0, 0), 4),
            ("LEFTPADDING", (1, 0), (1, 0), 10),
            ("RIGHTPADDING", (1, 0), (1, 0), 8),
            ("TOPPADDING", (0, 0), (-1, -1), 6),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 8),
        ],
        hAlign="LEFT",
    )


def _facts(sheet: _Sheet, content: SlideContent, verdict: Verdict) -> list[Any]:
    h_score = [] if verdict.h_score is None else [sheet.bold("H-score", f"{verdict.h_score} of 300")]
    facts = [
        sheet.bold("Margin", verdict.margin),
        sheet.bold("Confidence", f"{verdict.confidence} {verdict.confidence_words}"),
    ]
    if content.cells is not None:
        words = f"{content.cells.count} tumour cells in {content.cells.where}; {content.cells.complete}"
        facts.append(sheet.bold("Cells", f"{words} with a complete membrane"))
    if content.second is not None:
        facts.append(sheet.bold("Second opinion", f"{content.second.explanation}."))
    # Uncalibrated, the continuous score is what carries over from laboratory to laboratory.
    facts = [*h_score, *facts] if content.uncalibrated else [*facts, *h_score]
    return [sheet.marked(fact) for fact in facts]


def _percentages_and_rule(sheet: _Sheet, content: SlideContent, verdict: Verdict) -> list[Any]:
    of_cells = content.result.call_from == "cells"
    interval = "the 90 % interval" if of_cells else "central 90 % of the resamples"
    gap = 5 * _MM
    left = _WIDTH * 0.47
    right = _WIDTH - left - gap
    chart = [
        sheet.heading(f"Percentages of the tumour{' cells' if of_cells else ''}"),
        _chart(verdict.chart, sheet.font, left),
        sheet.text(f"Whiskers: {interval}. Dashed: the guideline's limit.", 7, colour=_SOFT),
    ]
    because = [
        sheet.heading(f"Why {verdict.label}"),
        sheet.text(f"{verdict.explanation}. (clause {verdict.branch})", 8),
    ]
    if verdict.clauses:
        rows = [[sheet.text(t, 7.5, colour=_SOFT) for t in ("Score", "Asks for", "This slide")]]
        fired = []
        for number, clause in enumerate(verdict.clauses, 1):
            rows.append(
                [
                    sheet.text(clause.score, 7.5, bold=True),
                    sheet.text(clause.condition, 7.5),
                    sheet.text(clause.finding, 7.5, bold=clause.fired),
                ]
            )
            if clause.fired:
                fired.append(("BACKGROUND", (0, number), (-1, number), _colour(_FIRED)))
        first = 10 * _MM
        second = (right - first) * 0.5
        because.append(sheet.table(rows, (first, second, right - first - second), *fired))
    return [_gap(8), sheet.beside([[chart, because]], (left + gap, right))]


def _chart(chart: Chart, font: PdfFont, width: float) -> Any:
    from reportlab.graphics.shapes import Drawing, Line, Rect, String

    # The geometry is that of a picture 760 wide, with y from the top; the words behind its bars take 90 of it.
    from_left, wide, high = chart.left - 44, chart.left + chart.width + 130, 0.62
    scale = width / (wide - from_left)
    drawing = Drawing(width, chart.height * high)

    def across(x: float) -> float:
        return (x - from_left) * scale

    def up(y: float) -> float:
        return (chart.height - y) * high

    def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, **more: Any) -> None:
        ends = (across(x1), up(y1), across(x2), up(y2))
        drawing.add(Line(*ends, strokeColor=_colour(colour), strokeWidth=width, **more))

    def word(
        x: float, y: float, text: str, size: float, anchor: str, *, bold: bool = False, ink: str = _INK
    ) -> None:
        name = font.bold if bold else font.regular
        drawing.add(
            String(
                across(x),
                up(y),
                font.shown(text),
                fontName=name,
                fontSize=size,
                textAnchor=anchor,
                fillColor=_colour(ink),
            )
        )

    for x, label in chart.ticks:
        line(x, 18, x, chart.height - 22, "#dfe4e9", 0.5)
        word(x, chart.height - 8, f"{label} %" if label == "100" else label, 7, "middle", ink=_SOFT)
    for bar in chart.bars:
        word(chart.left - 12, bar.y + 20, bar.name, 9, "end", bold=True)
        rectangle = (across(chart.left), up(bar.y + 26), bar.length * scale, 22 * high)
        drawing.add(Rect(*rectangle, fillColor=_colour(bar.colour), strokeColor=None))
        for colour, width in (("#ffffff", 2.8), (_INK, 1.2)):
            line(bar.low, bar.y + 15, bar.high, bar.y + 15, colour, width)
            for end in (bar.low, bar.high):
                line(end, bar.y + 10, end, bar.y + 20, colour, width)
        word(chart.left + chart.width + 14, bar.y + 15, bar.value, 9, "start", bold=True)
        word(chart.left + chart.width + 14, bar.y + 28, bar.interval, 7, "start", ink=_SOFT)
    line(chart.limit, 18, chart.limit, chart.height - 22, _INK, 0.9, strokeDashArray=[3, 2.4])
    word(chart.limit, 12, chart.limit_label, 7, "middle")
    return drawing


def _figure(sheet: _Sheet, content: SlideContent, figure: Figure, height_left: float) -> list[Any]:
    from reportlab.platypus import KeepTogether

    tissue = within(figure.overview.pixels, _FIGURE_PX)
    pictures = [tissue]
    if figure.layer is not None:
        pictures.append(lay_over(tissue, figure.layer.pixels))
    column = (_WIDTH - 6) / 2 if len(pictures) == 2 else _WIDTH
    # Heading, scale bar and legend take some of it.
    highest = min(_FIGURE_MOST, max(_FIGURE_LEAST, height_left - 24 * _MM))
    scale = min(column / figure.width, highest / figure.height)
    width, height = figure.width * scale, figure.height * scale
    shown = [_image(Picture(rgb, _FIGURE_QUALITY), width, height) for rgb in pictures]
    layered = figure.layer is not None
    below: list[Any] = [_scale_bar(sheet.font, width * figure.bar_pct / 100, figure.bar_label)]
    below += [_legend(sheet, content)] if layered else []
    return [
        KeepTogether(
            [
                sheet.heading("Overview and heatmap" if layered else "Overview"),
                sheet.beside([shown], [column + 3] * len(shown)),
                sheet.beside([below], [column + 3] * len(below)),
            ]
        )
    ]


def _scale_bar(font: PdfFont, width: float, label: str) -> Any:
    from reportlab.graphics.shapes import Drawing, Line, String

    drawing = Drawing(width + 60, 12)
    for x1, y1, x2, y2 in ((0, 7, width, 7), (0, 4, 0, 10), (width, 4, width, 10)):
        drawing.add(Line(x1, y1, x2, y2, strokeColor=_colour(_INK), strokeWidth=1.2))
    drawing.add(String(width + 5, 4, font.shown(label), fontName=font.regular, fontSize=8))
    return drawing


def _legend(sheet: _Sheet, content: SlideContent) -> Any:
    font, entries = sheet.font, []
    for entry in content.legend:
        share = f" <font color='{_SOFT}'>{font.markup(entry.share)}</font>" if entry.share else ""
        entries.append(_unbroken(f"{_swatch(entry.colour)} <b>{font.markup(entry.text)}</b>{share}"))
    entries.append(_unbroken("hatched: <b>not scored</b>"))
    return sheet.marked("&nbsp;  ".join(entries), 7.5)


def _swatch(colour: str) -> str:
    # The font could lack a square; a coloured ground never lacks.
    return f"<font backColor='{colour}' color='{colour}'>MM</font>"


def _unbroken(markup: str) -> str:
    """Markup whose words stay on one line."""
    inside, parts = False, []
    for character in markup:
        inside = character == "<" or (inside and character != ">")
        parts.append("\N{NO-BREAK SPACE}" if character == " " and not inside else character)
    return "".join(parts)


def _behind(sheet: _Sheet, content: SlideContent) -> list[Any]:
    from reportlab.platypus import KeepTogether, PageBreak

    fields = _examples(sheet, content.examples)
    if content.cells is not None:
        fields += [sheet.heading("Counted cells"), sheet.text(content.cells.scale)]
        fields += _views(sheet, content.cells.views)
    story: list[Any] = [PageBreak(), *fields] if fields else []
    story += [PageBreak()] if content.figure is not None else []
    if content.looked_at:
        story.append(
            KeepTogether(
                [sheet.heading("What was counted and what was left out"), *sheet.named(content.looked_at)]
            )
        )
    story += [sheet.heading(f"What the model rests on ({content.result.model.name})"), *sheet.named(content.card)]
    story += [sheet.heading("Where this comes from"), *sheet.named(content.provenance)]
    limits = [sheet.text(f"• {limit}", 8) for limit in content.limits]
    return [*story, KeepTogether([sheet.heading("Limits of the method"), *limits])]


def _examples(sheet: _Sheet, groups: Sequence[ExampleGroup]) -> list[Any]:
    if not groups:
        return []
    rows: list[list[Any]] = []
    first = _WIDTH - 6 * (_TILE + 4)
    for group in groups:
        name = f"{_swatch(group.colour)} <b>{sheet.font.markup(group.name)}</b>"
        tiles = [_captioned(sheet, tile, _TILE, _TILE, _EXAMPLE_PX) for tile in group.tiles]
        rows.append([sheet.marked(name), *tiles, *[""] * (6 - len(tiles))])
    return [
        sheet.heading("Examples of each class"),
        sheet.text("Coordinates: top-left corner of the patch in level-0 pixels.", 7.5, colour=_SOFT),
        sheet.table(rows, (first, *[_TILE + 4] * 6), ("LEFTPADDING", (1, 0), (-1, -1), 4)),
    ]


def _views(sheet: _Sheet, views: Sequence[Tile]) -> list[Any]:
    if not views:
        return []
    width = (_WIDTH - 8) / _VIEWS_BESIDE
    cells: list[Any] = [_captioned(sheet, view, width, width / 2, 640) for view in views]
    cells += [""] * (-len(cells) % _VIEWS_BESIDE)
    rows = [cells[start : start + _VIEWS_BESIDE] for start in range(0, len(cells), _VIEWS_BESIDE)]
    caption = "Fields from the least to the most staining one; on the right each counted cell is ringed."
    return [
        sheet.text(caption, 7.5, colour=_SOFT),
        sheet.beside(rows, [width + 8] * _VIEWS_BESIDE),
    ]


def _captioned(sheet: _Sheet, tile: Tile, width: float, height: float, longest_px: int) -> list[Any]:
    picture = Picture(within(tile.picture.pixels, longest_px), tile.picture.quality)
    tall, wide = picture.pixels.shape[:2]
    scale = min(width / wide, height / tall)
    return [
        _image(picture, wide * scale, tall * scale),
        sheet.text(f"x {tile.x}, y {tile.y}", 6.5, colour=_SOFT),
    ]


def _image(picture: Picture, width: float, height: float) -> Any:
    from reportlab.platypus import Image

    return Image(io.BytesIO(picture.encoded), width, height, hAlign="LEFT")


def _frame(font: PdfFont, content: SlideContent) -> Any:
    """What stands on every page."""

    def draw(canvas: Any, _document: Any) -> None:
        width, height = _PAGE
        canvas.saveState()
        canvas.setFillColor(_colour(_INK))
        canvas.rect(0, height - 10 * _MM, width, 10 * _MM, stroke=0, fill=1)
        canvas.setFillColor(_colour("#ffffff"))
        canvas.setFont(font.bold, 9)
        canvas.drawString(_MARGIN, height - 6.6 * _MM, _RESEARCH.upper())
        canvas.setFont(font.regular, 8.5)
        canvas.drawRightString(width - _MARGIN, height - 6.6 * _MM, _NO_DEVICE)
        canvas.setFillColor(_colour(_SOFT))
        canvas.setFont(font.regular, 7.5)
        name = font.shown(content.result.slide_id)
        name = name if len(name) <= 70 else name[:69] + "…"
        canvas.drawString(_MARGIN, 8 * _MM, name)
        canvas.drawRightString(width - _MARGIN, 8 * _MM, f"{_RESEARCH}  ·  page {canvas.getPageNumber()}")
        canvas.restoreState()

    return draw


def _gap(points: float) -> Any:
    from reportlab.platypus import Spacer

    return Spacer(1, points)


def _colour(name: str) -> Any:
    from reportlab.lib.colors import HexColor

    return HexColor(name)
