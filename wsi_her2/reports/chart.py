"""Geometry of the chart of percentages; the template only draws it."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_her2.reports.palette import hex_of
from wsi_her2.scoring.call import SlideCall

LEFT, WIDTH, ROW = 74.0, 520.0, 38.0
"""Where the axis starts, its length from 0 to 100 %, and the height of a row, in units of the picture."""


@dataclass(frozen=True)
class Bar:
    """One class: positions in units of the picture, texts as they are shown."""

    name: str
    colour: str
    y: float
    length: float
    low: float
    high: float
    value: str
    interval: str


@dataclass(frozen=True)
class Chart:
    """A horizontal bar chart of the percentages with their intervals.

    Attributes
    ----------
    bars : tuple of Bar
    left, width, height, row : float
    limit : float
        Where the line of the guideline's limit stands.
    limit_label : str
    ticks : tuple of tuple of float and str
    """

    bars: tuple[Bar, ...]
    left: float
    width: float
    height: float
    row: float
    limit: float
    limit_label: str
    ticks: tuple[tuple[float, str], ...]


def percentage_chart(call: SlideCall, limit_pct: float) -> Chart:
    """Lay out the percentages of a call.

    Parameters
    ----------
    call : SlideCall
    limit_pct : float
        Limit of the rule, percent of the tumour.
    """
    bars = []
    for index, (name, value) in enumerate(call.percentages.items()):
        low, high = (min(100.0, max(0.0, edge)) for edge in call.intervals.get(name, (value, value)))
        bars.append(
            Bar(
                name=name,
                colour=hex_of(name),
                y=24 + index * ROW,
                length=round(WIDTH * min(100.0, max(0.0, value)) / 100, 2),
                low=_at(low),
                high=_at(high),
                value=f"{value:.1f} %",
                interval=f"{low:.1f} to {high:.1f}",
            )
        )
    ticks = tuple((_at(tick), f"{tick:g}") for tick in (0.0, 25.0, 50.0, 75.0, 100.0))
    height = 24 + len(bars) * ROW + 26
    return Chart(tuple(bars), LEFT, WIDTH, height, ROW, _at(limit_pct), f"{limit_pct:g} %", ticks)


def _at(pct: float) -> float:
    return round(LEFT + WIDTH * pct / 100, 2)
