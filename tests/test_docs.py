"""What the documentation says can be typed: commands parse, marked ones run, Python runs, what is named exists.

A fenced block after a line `<!-- run -->` is run in a folder with small slides; other commands are only parsed.
Python blocks are run one after the other, page by page, in such a folder.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
import typer.main
from PIL import Image

import wsi_her2
from pipelines.cli import app
from pipelines.model_cards import write_model_cards
from tests.pipelines.conftest import ihc_pixels, write_slide
from wsi_her2.learning.miniature import make_miniatures

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(
    r"^(?P<mark><!-- run -->\n)?^``` ?(?P<language>[^\n]*)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL
)
SHELL = ("", "sh", "bash")
# Typer brings its own copy of click, whose errors have no public name.
UsageError = typer.BadParameter.__mro__[1]
READ_FROM_DISK = ("docs", "configs", "benchmarks", "tests", "wsi_her2", "pipelines")

identify = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page, *languages):
    """Fenced blocks of a page as matches."""
    found = BLOCK.finditer(page.read_text("utf-8"))
    return [block for block in found if block["language"].strip() in languages]


def prose(page):
    return BLOCK.sub("", page.read_text("utf-8"))


def commands_in_blocks(page):
    """Lines of shell blocks that call the program, continued lines joined."""
    for block in blocks(page, *SHELL):
        joined = re.sub(r"\\\n\s*|\n {2,}(?=[\[-])", " ", block["content"])
        for line in joined.splitlines():
            words = shlex.split(line.removesuffix(" &"), comments=True)
            if words[:1] == ["wsi-her2"]:
                yield words[1:]


def commands_in_prose(page):
    """What stands between backticks and calls the program; `models list [DIR]` may leave out its name."""
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        words = shlex.split(code) if code.count("'") % 2 == 0 else code.split()
        if words[:1] == ["wsi-her2"] and len(words) > 1:
            yield words[1:]


def parsed(words):
    """Parse words as the program does, without running anything; a list of alternatives counts as its first."""
    if "|" in words:
        words = words[: words.index("|")]
    words = [word.strip("[]").split("|")[0] for word in words if word != "..."]
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands") or words in ([], ["--help"], ["--version"]), f"no command {words[0]!r}"
    if words not in (["--help"], ["--version"]):
        command.make_context("wsi-her2", words)


def shown(words):
    return " ".join(["wsi-her2", *words])


def in_the_words_of_the_parser(error):
    return error.format_message() if hasattr(error, "format_message") else str(error)


@identify
def test_every_command_in_a_block_is_one_that_the_program_takes(page):
    for words in commands_in_blocks(page):
        try:
            parsed(words)
        except (UsageError, AssertionError) as error:
            pytest.fail(f"{page.name}: {shown(words)}: {in_the_words_of_the_parser(error)}")


@identify
def test_every_command_in_the_text_names_what_there_is(page):
    for words in commands_in_prose(page):
        try:
            parsed(words)
        except (UsageError, AssertionError) as error:
            if type(error).__name__ != "MissingParameter":  # a sentence need not name every argument
                pytest.fail(f"{page.name}: {shown(words)}: {in_the_words_of_the_parser(error)}")


def test_the_parser_that_is_asked_would_refuse_what_there_is_not():
    for words in (["score", "slides", "-o", "out", "--nope"], ["scor", "slides"], ["models", "lst"]):
        with pytest.raises((UsageError, AssertionError)):
            parsed(words)


def test_the_readers_of_blocks_find_commands():
    assert ["doctor"] in list(commands_in_blocks(ROOT / "docs" / "start.md"))
    assert sum(len(list(commands_in_blocks(page))) for page in PAGES) > 30
    assert sum(len(list(commands_in_prose(page))) for page in PAGES) > 20
    assert sum(block["mark"] is not None for page in PAGES for block in blocks(page, *SHELL)) >= 2


@identify
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text("utf-8")
    named = {
        name for name in re.findall(r"`([\w./-]+/[\w./-]+\.\w+)`", text) if name.split("/")[0] in READ_FROM_DISK
    }
    named |= set(re.findall(r"python ((?:docs|benchmarks)/[\w/.]+\.py)", text))
    missing = sorted(name for name in named if not (ROOT / name).is_file())
    assert not missing


@identify
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            slugs = {
                re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")
                for heading in headings
            }
            assert anchor in slugs, f"{page.name}: {target}"


@identify
def test_every_make_target_that_a_page_names_exists(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = re.findall(r"`make ([\w-]+)", prose(page))
    for block in blocks(page, *SHELL):
        named += re.findall(r"^make ([\w-]+)", block["content"], re.MULTILINE)
    assert set(named) <= targets


def test_every_page_is_in_the_navigation_once():
    navigation = re.findall(
        r"^\s+- (?:[^:\n]+: )?([\w.-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(navigation) == [page.name for page in PAGES if page.parent.name == "docs"]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The documentation as a site, built as `make docs` builds it."""
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_no_page_of_the_site_asks_another_host(site):
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > len(PAGES) - 3
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|link|img|iframe|source)[^>]*(?:https?:)?//[\w.-]+\.\w+[^>]*>", text), (
            page
        )
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", text), page


def test_every_page_of_the_site_says_that_it_is_for_research_only(site):
    for page in site.rglob("*.html"):
        assert "Research use only" in page.read_text("utf-8"), page


def test_the_python_interface_is_described_whole():
    described = re.findall(r"^::: wsi_her2\.(\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(described) == wsi_her2.__all__


def test_model_cards_are_what_the_bundles_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model_cards(Path("docs/model_cards.md"))
    assert Path("docs/model_cards.md").read_text("utf-8") == (ROOT / "docs" / "model_cards.md").read_text("utf-8")


@pytest.fixture(scope="session")
def example_files(tmp_path_factory):
    """The files that the pages speak of."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "slides").mkdir()
    write_slide(folder / "slides" / "case_7.tif", ihc_pixels())
    shutil.copy(folder / "slides" / "case_7.tif", folder / "case_HER2.ndpi")
    field = ihc_pixels()[300:940, 300:940]
    Image.fromarray(field).save(folder / "field.png", dpi=(50_800, 50_800))
    (folder / "table").mkdir()
    with (folder / "table" / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "patient", "score"])
        for number, score in enumerate(("0", "2+", "3+", "unknown")):
            Image.fromarray(np.roll(field, 60 * number, axis=1)).save(folder / "table" / f"{number}.png")
            rows.writerow([f"{number}.png", f"patient {number}", score])
    return folder


@pytest.fixture(scope="session")
def miniature_bci(tmp_path_factory):
    return make_miniatures(tmp_path_factory.mktemp("miniatures"), kinds=["bci"])["bci"]


def fresh_copy(examples, folder, page):
    """A folder in which a page's code finds what it speaks of."""
    shutil.copytree(examples, folder, dirs_exist_ok=True)
    if page.name == "start.md":
        shutil.rmtree(folder / "slides")
    return folder


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block["mark"] for block in blocks(page, *SHELL))],
    ids=lambda page: page.name,
)
def test_marked_commands_run(page, example_files, tmp_path):
    folder = fresh_copy(example_files, tmp_path / "run", page)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "wsi-her2").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipelines.cli "$@"\n')
    (programs / "wsi-her2").chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for block in blocks(page, *SHELL):
        if block["mark"]:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block["content"]],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python") and page.name != "datasets.md"],
    ids=lambda page: page.name,
)
def test_python_on_a_page_runs(page, example_files, tmp_path, monkeypatch):
    run_python(page, fresh_copy(example_files, tmp_path / "run", page), monkeypatch)


@pytest.mark.slow
def test_python_on_data_sets_runs_on_a_miniature(miniature_bci, tmp_path, monkeypatch):
    (tmp_path / "BCI_dataset").symlink_to(miniature_bci)
    run_python(ROOT / "docs" / "datasets.md", tmp_path, monkeypatch)


def run_python(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"__name__": page.stem}
    for block in blocks(page, "python"):
        line = page.read_text("utf-8")[: block.start("content")].count("\n")
        exec(compile("\n" * line + block["content"], str(page), "exec"), names)
