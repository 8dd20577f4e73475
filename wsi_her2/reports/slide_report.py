"""`report.html`: everything a person needs to judge the call of one slide, in one file."""

from __future__ import annotations

from pathlib import Path

from wsi_her2.reports.pages import write_page
from wsi_her2.reports.slide_content import SlideContent


def write_slide_report(path: Path, content: SlideContent) -> None:
    """Write the report of a slide as one HTML file that requests nothing.

    It holds no times of its own, no dates and no machine names: equal content gives equal files. Places of the
    slide are links to the viewer where the page is served by the review pages, and coordinates elsewhere.

    Parameters
    ----------
    path : pathlib.Path
    content : SlideContent
    """
    write_page(path, "slide.html.j2", "slide.js", vars(content), images="data:")
