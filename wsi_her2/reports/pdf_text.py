r"""Text for a PDF: a font that ships with a package, and no character that vanishes.

PDF viewers show nothing, or a box, for a character that the embedded font lacks. What cannot be drawn as it is
read is therefore written as an escape (`\u4e2d`), as in the tables for names that are not valid Unicode.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that are not drawn, or change how others are."""

_RIGHT_TO_LEFT = frozenset({"R", "AL"})
"""Drawn one after another from the left, as here, a name in such a script would read backwards."""


@dataclass(frozen=True)
class PdfFont:
    """A family of two faces, registered with reportlab.

    Attributes
    ----------
    regular, bold : str
        Names by which reportlab knows them.
    drawable : frozenset of int
        Code points that both have.
    """

    regular: str
    bold: str
    drawable: frozenset[int]

    def shown(self, text: str) -> str:
        """A text in which every character can be seen."""
        return "".join(self._shown(character) for character in text)

    def markup(self, text: str) -> str:
        """The same, inert in reportlab's markup."""
        return escape(self.shown(text))

    def _shown(self, character: str) -> str:
        if character in "\t\n\r":
            return " "
        hidden = unicodedata.category(character) in _INVISIBLE
        backwards = unicodedata.bidirectional(character) in _RIGHT_TO_LEFT
        if ord(character) in self.drawable and not hidden and not backwards:
            return character
        code = ord(character)
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@cache
def pdf_font() -> PdfFont:
    """The font of PDF reports: DejaVu Sans where matplotlib has brought it, otherwise its Latin part, Vera.

    reportlab brings that one. Which it is depends on what is installed, not on the fonts of the machine.
    """
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    faces: list[Any] = []
    for name, path in zip(("wsi-her2", "wsi-her2-bold"), _faces(), strict=True):
        face = TTFont(name, str(path))
        pdfmetrics.registerFont(face)
        faces.append(face)
    regular, bold = faces
    # There is no slanted face, and what is slanted must not lose its weight.
    names = {"normal": regular, "bold": bold, "italic": regular, "boldItalic": bold}
    pdfmetrics.registerFontFamily(regular.fontName, **{kind: face.fontName for kind, face in names.items()})
    drawable = frozenset(regular.face.charToGlyph) & frozenset(bold.face.charToGlyph)
    return PdfFont(regular.fontName, bold.fontName, drawable)


def _faces() -> tuple[Path, Path]:
    # Looked for, not imported: matplotlib takes a second, and its fonts are files.
    matplotlib = find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        folder = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf"
        dejavu = folder / "DejaVuSans.ttf", folder / "DejaVuSans-Bold.ttf"
        if all(path.is_file() for path in dejavu):
            return dejavu
    import reportlab

    folder = Path(reportlab.__file__).parent / "fonts"
    return folder / "Vera.ttf", folder / "VeraBd.ttf"
