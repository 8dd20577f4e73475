"""The review server as a browser and a user meet it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from pipelines.results import read_result
from pipelines.review.access import Access
from pipelines.review.journal import REASONS
from pipelines.review.server import serve as view
from tests.pipelines.conftest import cli_command
from tests.pipelines.review.conftest import Serve
from tests.reports.browser import Browser
from wsi_her2.errors import ConfigurationError

SQUARE = [[300, 300], [900, 300], [900, 900], [300, 900], [300, 300]]


def regions(name: str = "exclude", ring: object = SQUARE) -> dict[str, object]:
    """A drawn region as a page sends it."""
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {"name": name}, "geometry": geometry}],
    }


def write(client: httpx.Client, method: str, address: str, content: object) -> httpx.Response:
    """Send what a page sends."""
    origin = str(client.base_url).rstrip("/")
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"origin": origin, "content-type": "application/json"}
    return client.request(method, f"/api/slides/{address}", content=sent, headers=headers)


# What is shown.


def test_the_list_says_of_each_slide_what_the_table_says_with_numbers_as_numbers(
    client: httpx.Client, review_run: Path
) -> None:
    run = client.get("/api/run").json()
    assert run["title"] == "run"
    assert run["state"] == "finished"
    assert run["reasons"] == list(REASONS)
    rows = {row["slide_id"]: row for row in run["slides"]}
    with (review_run / "slides.csv").open(newline="", encoding="utf-8") as stream:
        table = {row["slide_id"]: row for row in csv.DictReader(stream)}
    assert rows.keys() == table.keys()
    for slide_id, cells in table.items():
        row = rows[slide_id]
        for column in ("status", "reason", "modality", "calibration"):
            assert row[column] == cells[column]
        for column in ("her2_score", "her2_group", "second_opinion"):
            assert (row[column] or "") == cells[column]
        for column in ("confidence", "h_score", "pct_0", "pct_3", "tissue_mm2", "n_patches", "tumour_patches"):
            shown = row[column]
            assert (
                shown is None if cells[column] == "" else shown == pytest.approx(float(cells[column]), abs=0.006)
            )
        assert row["flagged"] == (cells["review"] == "true")
        assert row["name"] == Path(cells["path"]).name
        assert row["viewable"] is True
        assert row["latest_review"] is None
        assert re.fullmatch(r"#[0-9a-f]{6}", row["colour"])
    assert "slides" not in client.get("/api/run?slides=no").json()


def test_a_slide_is_described_with_its_call_in_numbers_and_words(client: httpx.Client, review_run: Path) -> None:
    for slide_id in ("7_HER2", "12_HER2"):
        described, result = client.get(f"/api/slides/{slide_id}").json(), read_result(review_run / slide_id)
        assert result is not None
        assert result.call is not None
        assert result.reader is not None
        assert (described["width"], described["height"]) == tuple(result.reader.dimensions)
        assert described["mpp"] == result.reader.mpp
        assert described["fingerprint"] == result.fingerprint
        assert [c["name"] for c in described["classes"]] == list(result.model.classes)
        assert described["percentages"].keys() == result.call.percentages.keys()
        for name, shown in described["percentages"].items():
            assert shown["value"] == result.call.percentages[name]
            assert [shown["low"], shown["high"]] == list(result.call.intervals[name])
        assert described["words"]["verdict"] == result.call.score
        assert result.call.explanation in described["words"]["rule"]
        assert "phantoms" in described["words"]["model"]
        assert "ncalibrated" in described["words"]["calibration"]
        assert sum(clause["fired"] for clause in described["clauses"]) == 1
        assert described["examples"]
        for example in described["examples"]:
            assert 0 <= example["x"] < described["width"]
            assert example["size_px0"] == described["patch_px0"]
            assert example["class"] in result.model.classes
        assert described["layers"] == {"patches": True, "tissue": True, "cells": True, "regions": False}
        assert described["reviews"] == []
        assert described["drawn"] == {"type": "FeatureCollection", "features": []}


def test_a_refused_slide_is_described_with_what_the_gate_says(client: httpx.Client) -> None:
    described = client.get("/api/slides/12_HE").json()
    assert described["words"]["verdict"] == "Not assessable"
    assert described["percentages"] == {}
    (reason,) = described["gate"]
    assert reason["code"] == "wrong_modality"
    assert reason["measured"] > reason["limit"]
    # It can be looked at all the same.
    assert described["viewable"] is True
    assert described["layers"]["tissue"] is True


def test_the_overview_is_shown_even_where_the_slide_is_gone(client: httpx.Client) -> None:
    overview = client.get("/api/slides/7_HER2/overview.jpg")
    assert overview.headers["content-type"] == "image/jpeg"
    assert overview.content.startswith(b"\xff\xd8")


def test_reports_and_files_of_a_slide_are_those_of_its_folder(client: httpx.Client, review_run: Path) -> None:
    folder = review_run / "7_HER2"
    assert client.get("/report/7_HER2").content == (folder / "report.html").read_bytes()
    for name in ("heatmap.png", "tissue.png", "overlay.geojson", "patches.csv", "report.html", "result.json"):
        for address in (f"/files/7_HER2/{name}", f"/run/7_HER2/{name}"):
            assert client.get(address).content == (folder / name).read_bytes()
    assert client.get("/run").headers["location"] == "/run/"
    assert client.get("/run/").content == (review_run / "index.html").read_bytes()
    assert client.get("/run/slides.csv").content == (review_run / "slides.csv").read_bytes()
    first = client.get("/files/7_HER2/heatmap.png")
    again = client.get("/files/7_HER2/heatmap.png", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "address",
    [
        "/files/7_HER2/cells.parquet",
        "/files/7_HER2/patches.zarr",
        "/files/7_HER2/..%2f..%2frun.json",
        "/files/..%2f12_HER2/result.json",
        "/files/%2e%2e/run.json",
        "/files/7_HER2%2f..%2f12_HER2/result.json",
        "/files/.partial/result.json",
        "/files//etc/passwd",
        "/run/run.json",
        "/run/ledger.csv",
        "/run/reviews.sqlite",
        "/run/../run.json",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%5capp.py",
        "/static//etc/passwd",
        "/static/openseadragon",
        "/static/",
        "/api/slides/..%2f..%2fetc",
        "/api/slides/%00",
        "/api/slides/7_HER2/patches/",
        "/slides.csv",
        "/reviews.sqlite",
    ],
)
def test_nothing_beside_the_listed_files_can_be_asked_for(client: httpx.Client, address: str) -> None:
    # As it is written: a client would resolve the dots itself.
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=30) as connection:
        connection.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split(b" ", 2)[1]) in (307, 404)
    assert b"root:" not in answer
    assert b'"argv"' not in answer


@pytest.mark.parametrize(
    "address",
    [
        "/api/slides/nope",
        "/api/slides/nope/patches",
        "/api/slides/nope/tiles/0/0_0.jpg",
        "/api/nope",
        "/report/nope",
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(client: httpx.Client, address: str) -> None:
    refused = client.get(address)
    assert refused.status_code == 404
    said = refused.json()["error"] if address.startswith("/api/") else refused.text
    assert said[0].isupper()
    assert said.endswith(".")


def test_reading_changes_nothing_in_the_folder(run_copy: Path, serve: Serve) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path.relative_to(run_copy)): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in run_copy.rglob("*")
        }

    before = state()
    client = serve(run_copy)
    for address in ("/api/run", "/run/", "/report/7_HER2", "/api/reviews.csv"):
        assert client.get(address).status_code == 200
    for part in (
        "",
        "/patches",
        "/tissue.png",
        "/cells?x=0&y=0&width=99&height=99",
        "/regions",
        "/tiles/9/0_0.jpg",
    ):
        assert client.get(f"/api/slides/7_HER2{part}").status_code == 200
    assert write(client, "POST", "7_HER2/rescore", {"regions": regions()}).status_code == 200
    assert state() == before


# Reviews.


def test_a_review_is_kept_with_what_was_looked_at(run_copy: Path, serve: Serve) -> None:
    client, result = serve(run_copy, reviewer="Ada"), read_result(run_copy / "12_HER2")
    assert result is not None
    kept = write(client, "POST", "12_HER2/reviews", {"verdict": "agree", "score": "2+", "reviewer": "Bea"})
    assert kept.status_code == 201
    review = kept.json()
    assert (review["slide_id"], review["reviewer"], review["called"], review["score"]) == (
        "12_HER2",
        "Bea",
        "2+",
        "2+",
    )
    assert review["fingerprint"] == result.fingerprint
    assert review["model_sha256"] == result.model.sha256
    assert (review["regions"], review["rescored"]) == (None, None)
    second = {"verdict": "overrule", "score": "3+", "reason": REASONS[0], "comment": "clear", "reviewer": ""}
    assert write(client, "POST", "12_HER2/reviews", second).json()["reviewer"] == "Ada"
    shown = client.get("/api/slides/12_HER2").json()
    assert [review["score"] for review in shown["reviews"]] == ["3+", "2+"]
    latest = {row["slide_id"]: row["latest_review"] for row in client.get("/api/run").json()["slides"]}
    assert latest["12_HER2"] == shown["row"]["latest_review"]
    assert latest["12_HER2"]["verdict"] == "overrule"
    assert latest["12_HER2"]["current"] is True
    assert latest["7_HER2"] is None
    # Another server before the same folder has them as well.
    assert len(serve(run_copy).get("/api/slides/12_HER2").json()["reviews"]) == 2


def test_reviews_can_be_taken_away_as_tables(run_copy: Path, serve: Serve) -> None:
    client = serve(run_copy)
    write(client, "POST", "12_HER2/reviews", {"verdict": "overrule", "score": "1+", "reviewer": "=Ada"})
    write(client, "POST", "7_HER2/reviews", {"verdict": "unsure", "reviewer": "Ada"})
    answer = client.get("/api/reviews.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="reviews.csv"'
    reviews = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["slide_id"], row["verdict"], row["of_current_result"]) for row in reviews] == [
        ("12_HER2", "overrule", "true"),
        ("7_HER2", "unsure", "true"),
    ]
    assert reviews[0]["reviewer"] == "'=Ada"
    truth = list(csv.DictReader(io.StringIO(client.get("/api/truth.csv").text)))
    assert [(row["slide_id"], row["her2_score"]) for row in truth] == [("12_HER2", "1+")]


@pytest.mark.parametrize(
    "sent",
    [
        {"verdict": "overrule", "reviewer": "Ada"},
        {"verdict": "perhaps", "reviewer": "Ada"},
        {"verdict": "agree", "score": "3+", "reviewer": "Ada"},
        {"verdict": "overrule", "score": "4+", "reviewer": "Ada"},
        {"verdict": "unsure", "reviewer": "   "},
        {"verdict": "unsure", "reviewer": "Ada", "reason": "because"},
        {"verdict": "unsure", "reviewer": "Ada", "time": "1999-01-01"},
        {"verdict": "unsure", "reviewer": "Ada", "comment": 7},
        {"reviewer": "Ada"},
    ],
)
def test_what_is_no_review_is_refused_in_a_sentence(run_copy: Path, serve: Serve, sent: dict[str, object]) -> None:
    client = serve(run_copy, reviewer="")
    refused = write(client, "POST", "12_HER2/reviews", sent)
    assert refused.status_code == 422
    assert refused.json()["error"].endswith(".")
    assert not (run_copy / "reviews.sqlite").exists()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"x"', 400),
        (b'{"verdict": NaN}', 400),
        (b"[" * 200_000, 413),
        (b'{"a":' * 9_000 + b"1" + b"}" * 9_000, 400),
        (b'{"comment": "' + b"x" * 70_000 + b'"}', 413),
        (b'{"verdict": "unsure", "reviewer": "\xff"}', 400),
    ],
    ids=["empty", "cut off", "list", "text", "NaN", "long", "deep", "large", "no UTF-8"],
)
def test_what_is_no_json_or_too_much_of_it_is_refused(client: httpx.Client, sent: bytes, status: int) -> None:
    refused = write(client, "POST", "12_HER2/reviews", sent)
    # Whether so deep a thing can be read depends on Python; it is no review in either case.
    assert refused.status_code in ((400, 422) if b'"a"' in sent else (status,))
    assert refused.json()["error"].endswith(".")


def test_drawn_regions_are_kept_and_a_review_says_what_the_call_is_with_them(run_copy: Path, serve: Serve) -> None:
    client = serve(run_copy)
    rescored = write(client, "POST", "7_HER2/rescore", {"regions": regions()}).json()
    assert not (run_copy / "reviews.sqlite").exists()
    assert rescored["from"] in ("cells", "patches")
    whole = client.get("/api/slides/7_HER2").json()
    assert 0 < rescored["tumour_patches"] < whole["row"]["tumour_patches"]
    number = write(client, "PUT", "7_HER2/drawn", {"regions": regions(), "reviewer": "Ada"}).json()["number"]
    drawn = client.get("/api/slides/7_HER2").json()["drawn"]
    assert [feature["properties"]["name"] for feature in drawn["features"]] == ["exclude"]
    review = write(client, "POST", "7_HER2/reviews", {"verdict": "unsure", "reviewer": "Ada"}).json()
    assert review["regions"] == number
    assert review["rescored"] == (None if rescored["call"] is None else rescored["call"]["score"])
    # With nothing drawn any more, nothing is in force.
    empty = {"type": "FeatureCollection", "features": []}
    write(client, "PUT", "7_HER2/drawn", {"regions": empty, "reviewer": "Ada"})
    assert (
        write(client, "POST", "7_HER2/reviews", {"verdict": "unsure", "reviewer": "Ada"}).json()["regions"] is None
    )


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"regions": []},
        {"regions": {"type": "FeatureCollection"}},
        {"regions": regions("vessel")},
        {"regions": regions(ring=[[0, 0], [1, 1]])},
        {"regions": regions(ring=[["a", 0], [1, 1], [2, 2]])},
        {"regions": regions(), "more": 1},
    ],
)
def test_what_are_no_regions_is_refused_in_a_sentence(
    client: httpx.Client, run_copy: Path, sent: dict[str, object]
) -> None:
    for method, address in (("POST", "rescore"), ("PUT", "drawn")):
        refused = write(client, method, f"7_HER2/{address}", {"reviewer": "Ada", **sent})
        assert refused.status_code == 422
        assert refused.json()["error"].endswith(".")


def test_a_folder_that_cannot_keep_reviews_says_so_and_can_still_be_looked_at(
    run_copy: Path, serve: Serve
) -> None:
    (run_copy / "reviews.sqlite").mkdir()
    client = serve(run_copy)
    refused = write(client, "POST", "7_HER2/reviews", {"verdict": "unsure", "reviewer": "Ada"})
    assert refused.status_code == 500
    assert "reviews.sqlite" in refused.json()["error"]
    assert client.get("/api/slides/7_HER2/tiles/9/0_0.jpg").status_code == 200


def test_an_error_that_nobody_expected_is_told_without_its_details(
    run_copy: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(run_copy)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret of the machine")

    monkeypatch.setattr("pipelines.review.app.regions_of", fail)
    refused = client.get("/api/slides/7_HER2/regions")
    assert refused.status_code == 500
    assert "secret" not in refused.text
    assert refused.json()["error"].endswith(".")
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert client.get("/api/run").status_code == 200


# In a browser.


def test_reports_work_in_a_browser_as_they_do_from_the_disk(client: httpx.Client, browser: Browser) -> None:
    browser.complaints.clear()
    browser.requested.clear()
    browser.open(f"{client.base_url}/report/7_HER2")
    # The script of the report has run: the layer can be faded.
    browser.run(
        "(() => { const o = document.querySelector('input[type=range]'); o.value = o.min; "
        "o.dispatchEvent(new Event('input', {bubbles: true})) })()"
    )
    browser.until("getComputedStyle(document.getElementById('layer')).opacity === '0'")
    browser.open(f"{client.base_url}/run/")
    browser.until("document.querySelectorAll('#slides tbody tr').length === 4")
    browser.until("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    browser.run("document.querySelector('#slides tbody a').click()")
    browser.until("location.pathname.endsWith('/report.html') && document.querySelector('.call') !== null")
    assert browser.complaints == []
    assert all(address.startswith((str(client.base_url), "data:", "about:")) for address in browser.requested)


def test_a_report_that_somebody_else_has_changed_cannot_act_as_the_reviewer(
    run_copy: Path, serve: Serve, browser: Browser
) -> None:
    report = run_copy / "7_HER2" / "report.html"
    page = report.read_text(encoding="utf-8")
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    page = page.replace(
        "<body>", "<body><script>document.title = 'taken over'</script><img src=x onerror='document.title = 1'>"
    )
    report.write_text(page, encoding="utf-8")
    client = serve(run_copy)
    browser.open(f"{client.base_url}/report/7_HER2")
    assert "HER2 report" in browser.run("document.title")


def test_a_browser_that_has_shown_the_token_is_let_in_again(
    review_run: Path, serve: Serve, browser: Browser
) -> None:
    client = serve(review_run, access=Access.to("127.0.0.1", "secret"))
    browser.open(f"{client.base_url}/run/")
    assert "token" in browser.run("document.body.textContent")
    browser.open(f"{client.base_url}/run/?token=secret#result=3%2B")
    browser.until("document.querySelectorAll('#slides tbody tr').length === 1")
    assert browser.run("location.search + location.hash") == "#result=3%2B"
    browser.open(f"{client.base_url}/report/7_HER2")
    assert "HER2 report" in browser.run("document.title")
    # A script of the page cannot read what lets it in.
    assert browser.run("document.cookie") == ""


# The command.


@contextmanager
def command(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`wsi-her2 view` in a process of its own, and the address that it printed."""
    process = subprocess.Popen(
        cli_command("view", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BROWSER": "true"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, line + (process.stderr.read() if process.stderr else "")
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_view_serves_until_it_is_interrupted_and_ends_cleanly(review_run: Path, ending: signal.Signals) -> None:
    with command(review_run, "--no-browser") as (process, address):
        with httpx.Client(timeout=60) as client:
            assert len(client.get(f"{address}api/run").json()["slides"]) == 4
            assert client.get(f"{address}api/slides/7_HER2/tiles/9/0_0.jpg").status_code == 200
            # A browser keeps its connections open; that must not keep the server.
            process.send_signal(ending)
            assert process.wait(timeout=60) == 0
        # Not `communicate`, which forgets what was read ahead with the line of the address.
        assert process.stdout is not None
        assert process.stderr is not None
        said, complained = process.stdout.read(), process.stderr.read()
        assert complained == ""
        assert "4 slides" in said
        assert "Research use only" in said


def test_view_beyond_this_machine_prints_an_address_with_a_token(review_run: Path) -> None:
    with command(review_run, "--no-browser", "--host", "0.0.0.0") as (_, address):
        assert (token := re.search(r"\?token=(\S{20,})$", address))
        port = re.search(r":(\d+)/", address)
        assert port is not None
        local = f"http://127.0.0.1:{port[1]}/api/run"
        assert httpx.get(local, timeout=60).status_code == 401
        assert httpx.get(f"{local}?token={token[1]}", timeout=60).status_code == 303


def test_view_says_what_is_wrong_and_what_to_do(review_run: Path, tmp_path: Path) -> None:
    def refused(output: Path, **options: object) -> str:
        with pytest.raises(ConfigurationError) as error:
            view(output, open_browser=False, say=pytest.fail, **options)  # type: ignore[arg-type]
        return str(error.value)

    assert "score -o" in refused(tmp_path)
    assert "--slides" in refused(review_run, slides=tmp_path / "nowhere")
    assert "--host" in refused(review_run, host="203.0.113.7")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port" in refused(review_run, port=taken.getsockname()[1])


def test_view_without_its_extra_says_what_to_install(review_run: Path, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ImportError('not installed')", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        cli_command("view", review_run),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "pip install 'wsi-her2[view]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_a_server_is_loaded_for_other_commands() -> None:
    code = (
        "import sys\nimport pipelines.cli, pipelines.exports.rebuild\n"
        "print(sorted({'starlette', 'uvicorn', 'sqlite3', 'simplejpeg'} & set(sys.modules)))"
    )
    # What measures coverage loads a database of its own.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=plain)
    assert shown.stdout.strip() == "[]"
