"""Self-contained HTML pages: templates with everything inlined, and a policy that forbids any request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_her2.atomic import text_beside

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = resources.files("wsi_her2.reports") / "templates"


def write_page(path: Path, template: str, script: str, context: Mapping[str, Any], *, images: str) -> None:
    """Render a template and write it as one file.

    Every value is escaped, whatever the template does with it. Beside that stands a content security policy: only
    the one script of this package runs, recognised by its hash, and nothing is fetched. So a slide that is named
    like a script stays a name even if an escape were forgotten.

    Parameters
    ----------
    path : pathlib.Path
    template, script : str
        Files in `templates/`.
    context : mapping
    images : str
        From where the page may show images, as in the policy's `img-src`.
    """
    from markupsafe import Markup

    policy = (
        f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; "
        f"script-src {script_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    stream = (
        _environment()
        .get_template(template)
        .stream(
            **context, page_policy=policy, page_css=Markup(_read("page.css")), page_script=Markup(_read(script))
        )
    )
    stream.enable_buffering(64)
    with text_beside(path) as out:
        out.writelines(stream)


def script_hash(name: str) -> str:
    """What a policy lets a script of `templates/` run by: its hash, as a source of `script-src`."""
    digest = hashlib.sha256(_read(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


@cache
def _environment() -> Environment:
    """Where templates come from, once in a process: compiling that of a slide takes a tenth of a second."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("wsi_her2.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _read(name: str) -> str:
    # One form of line end, since the script's hash is taken over the text.
    return (_TEMPLATES / name).read_text(encoding="utf-8").replace("\r\n", "\n")
