"""A slide behind a URL is the slide; a failing connection is neither damage nor another slide."""

import base64
import os
import pickle
import shutil
import subprocess
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import fsspec.config
import numpy as np
import pytest

from tests.range_server import serve
from wsi_her2.errors import (
    MissingExtra,
    SlideError,
    SlideForbidden,
    SlideNotFound,
    SlideReadError,
    SlideUnreachable,
    UnsupportedSlide,
)
from wsi_her2.slides import remote
from wsi_her2.slides.blocks import read_block, sample_patches
from wsi_her2.slides.grid import plan_patches
from wsi_her2.slides.location import SlideUrl
from wsi_her2.slides.remote import BLOCK_BYTES, RemoteFile, slides_at, state_of
from wsi_her2.slides.slide import open_slide
from wsi_her2.slides.tissue import detect_tissue

pytest.importorskip("aiohttp")

SUFFIXES = {".svs", ".tif"}


@pytest.fixture
def server(ihc_slide_path):
    """Serves the small slide as `/ihc.tif`."""
    with serve(ihc_slide_path.parent) as serving:
        yield serving


@pytest.fixture
def bucket():
    """A folder of `memory://` that is gone afterwards."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/lab", recursive=True)


def read_elsewhere(slide):
    return slide.read(500, 300, 256, 256, 0.5)


# Pixels


@pytest.mark.parametrize("mpp", [0.5, 0.7, 2.0])
def test_pixels_over_http_are_those_of_the_file(ihc_slide_path, server, mpp):
    with open_slide(ihc_slide_path, backend="tiffslide") as here, open_slide(f"{server.url}/ihc.tif") as there:
        assert there.backend == "tiffslide"
        assert (there.name, there.dimensions, there.mpp, there.levels) == (
            here.name,
            here.dimensions,
            here.mpp,
            here.levels,
        )
        assert dict(there.properties) == dict(here.properties)
        np.testing.assert_array_equal(there.read(450, 250, 320, 240, mpp), here.read(450, 250, 320, 240, mpp))


@pytest.mark.parametrize(
    "name", ["he_aperio_cmu1_small_region.svs", "hamamatsu fluorescence é (560).ndpi", "tiny/😐.svs"]
)
@pytest.mark.filterwarnings("ignore:hamamatsu-format")
def test_real_slides_of_scanners_are_read_over_http(real_slides, name):
    with serve(real_slides) as server, open_slide(real_slides / name, mpp=0.5, backend="tiffslide") as here:
        there = open_slide(f"{server.url}/{name}", mpp=0.5)
        np.testing.assert_array_equal(there.read(100, 100, 200, 200), here.read(100, 100, 200, 200))


def test_a_slide_opens_again_in_another_process(ihc_slide_path, server):
    slide = open_slide(f"{server.url}/ihc.tif?sig=secret")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        elsewhere = pool.submit(read_elsewhere, slide).result()
    np.testing.assert_array_equal(elsewhere, read_elsewhere(open_slide(ihc_slide_path, backend="tiffslide")))


def test_damage_of_the_slide_is_damage_over_http_too(ihc_slide_path, tmp_path):
    content = bytearray(ihc_slide_path.read_bytes())
    with open_slide(ihc_slide_path, backend="tiffslide") as slide:
        page = slide._backend()._slide.ts_tifffile.series[0].levels[0].pages[0]
        start, size = page.dataoffsets[20], page.databytecounts[20]
    content[start : start + size] = bytes(size)
    (tmp_path / "damaged.tif").write_bytes(content)
    x, y = 20 % 9 * 256, 20 // 9 * 256
    with serve(tmp_path) as server, open_slide(f"{server.url}/damaged.tif") as slide:
        with pytest.raises(SlideReadError, match="damaged"):
            slide.read(x, y, 256, 256)
        assert slide.read(x + 256, y, 256, 256).shape == (256, 256, 3)


def test_a_file_that_ends_too_early_is_damaged_not_unreachable(ihc_slide_path, tmp_path):
    content = ihc_slide_path.read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) // 2])
    with serve(tmp_path) as server, open_slide(f"{server.url}/cut.tif", mpp=0.5) as slide:
        with pytest.raises(SlideReadError):
            slide.read(0, 0, *slide.dimensions)
        assert slide.read(0, 0, 64, 64).shape == (64, 64, 3)


def test_a_url_that_is_signed_for_reading_alone_is_read(server, ihc_slide_path):
    server.heads = False
    url = SlideUrl(f"{server.url}/ihc.tif?sig=1")
    assert state_of(url).size == ihc_slide_path.stat().st_size
    with open_slide(url) as there, open_slide(ihc_slide_path, backend="tiffslide") as here:
        np.testing.assert_array_equal(there.read(450, 250, 320, 240), here.read(450, 250, 320, 240))


def test_credentials_reach_the_server_from_the_url_and_from_the_settings_of_fsspec(server, monkeypatch):
    open_slide(f"{server.url}/ihc.tif".replace("http://", "http://me:word@"))
    assert server.authorizations == {"Basic " + base64.b64encode(b"me:word").decode()}
    server.authorizations.clear()
    monkeypatch.setitem(fsspec.config.conf, "https", {"headers": {"Authorization": "Bearer token"}})
    slide = open_slide(f"{server.url}/ihc.tif")
    slide.read(450, 250, 320, 240)
    assert server.authorizations == {"Bearer token"}


# What is asked of the server


def test_the_tiles_of_a_region_are_fetched_together_and_little_besides(server):
    slide = open_slide(f"{server.url}/ihc.tif")
    page = slide._backend()._slide.ts_tifffile.series[0].levels[0].pages[0]
    across = page.chunked[1]
    tiles = [row * across + column for row in range(1, 5) for column in range(2, 6)]
    server.spans.clear()
    slide.read(512, 256, 1024, 1024)
    needed = sum(page.databytecounts[tile] for tile in tiles)
    assert len(server.spans) <= 4
    assert sum(end - start for start, end in server.spans) <= needed + 4 * 2 * BLOCK_BYTES
    server.spans.clear()
    slide.read(512, 256, 1024, 1024)
    assert server.spans == []


def test_a_region_of_more_blocks_than_are_kept_is_fetched_once(server, monkeypatch):
    monkeypatch.setattr(remote, "_KEPT_BLOCKS", 1)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 4096)
    slide = open_slide(f"{server.url}/ihc.tif")
    server.spans.clear()
    slide.read(0, 0, 2200, 1800)
    fetched = [number for start, end in server.spans for number in range(start // 4096, -(-end // 4096))]
    assert len(fetched) > 10
    assert len(fetched) == len(set(fetched))


def test_local_slides_load_nothing_of_what_urls_need(ihc_slide_path):
    code = (
        "import sys; from wsi_her2.slides.slide import open_slide; from pipelines.sources import find_slides\n"
        f"open_slide({str(ihc_slide_path)!r}).read(0, 0, 64, 64)\n"
        "print('fsspec' in sys.modules, 'aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# What can go wrong


def test_a_connection_that_is_lost_is_no_unreadable_region(server):
    slide = open_slide(f"{server.url}/ihc.tif")
    mask = detect_tissue(slide)
    grid = plan_patches(slide, mask, 128, 0.5)
    slide.close()
    slide._backend()
    server.break_down()
    for read in (
        lambda: read_block(slide, grid, 0),
        lambda: sample_patches(slide, grid, 4),
        lambda: slide.overview(0.5),
    ):
        with pytest.raises(SlideUnreachable, match="the connection failed") as raised:
            read()
        assert isinstance(raised.value, ConnectionError)
        assert not isinstance(raised.value, SlideReadError)
        assert raised.value.__cause__ is not None
    server.repair()
    assert read_block(slide, grid, 0)[1].any()


@pytest.mark.parametrize("failure", ["hang up", 503])
@pytest.mark.parametrize("for_good", [True, False])
def test_a_connection_that_fails_while_a_slide_is_opened_never_gives_another_slide(server, for_good, failure):
    whole = open_slide(f"{server.url}/ihc.tif")
    answers, lost = server.answers, 0
    for number in range(answers):
        server.answers = 0
        server.fails = lambda n, at=number: failure if n == at or (for_good and n > at) else None
        try:
            opened = open_slide(f"{server.url}/ihc.tif")
        except SlideUnreachable:
            lost += 1
            continue
        # A client may have asked again by itself.
        assert opened.levels == whole.levels
        assert dict(opened.properties) == dict(whole.properties)
    assert lost == answers or not for_good


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_unreachable(server, status):
    server.fails = lambda _: status
    with pytest.raises(SlideUnreachable, match=str(status)):
        open_slide(f"{server.url}/ihc.tif")


def test_a_server_that_is_not_there_is_unreachable(server):
    with pytest.raises(SlideUnreachable, match="connection failed"):
        open_slide(server.url.rpartition(":")[0] + ":9/ihc.tif")


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_says_what_to_do_and_is_not_unreachable(server, status):
    slide = open_slide(f"{server.url}/ihc.tif")
    server.fails = lambda _: status
    for ask in (lambda: open_slide(f"{server.url}/ihc.tif"), lambda: slide.read(0, 0, 1024, 1024)):
        with pytest.raises(SlideForbidden, match="Give the credentials"):
            ask()


def test_a_missing_slide_a_file_of_another_kind_and_a_server_without_parts_say_so(server, tmp_path):
    for absent in (f"{server.url}/absent.svs", "memory://lab/absent.svs"):
        with pytest.raises(SlideNotFound, match="no such file"):
            open_slide(absent)
    (tmp_path / "a.svs").write_bytes(os.urandom(100_000))
    with serve(tmp_path) as other, pytest.raises(UnsupportedSlide, match="Copy others to a disk"):
        open_slide(f"{other.url}/a.svs")
    server.ranges = False
    with pytest.raises(UnsupportedSlide, match="does not give parts"):
        open_slide(f"{server.url}/ihc.tif")
    assert sum(end - start for start, end in server.spans) < 3 * (server.folder / "ihc.tif").stat().st_size


@pytest.mark.parametrize("backend", ["openslide", "tiled-jpeg"])
def test_backends_that_need_a_disk_say_so(server, backend):
    with pytest.raises(UnsupportedSlide, match="files on a disk only"):
        open_slide(f"{server.url}/ihc.tif", backend=backend)


def test_a_url_that_lost_a_slash_says_so():
    with pytest.raises(SlideNotFound, match="give it as text"):
        open_slide(Path("https://host/a.svs"))


def test_no_error_shows_credentials_and_all_can_be_sent_to_another_process(server):
    address = f"{server.url}/ihc.tif?sig=SECRET".replace("http://", "http://me:SECRET@")
    slide = open_slide(address)
    for failure in ("hang up", 403, 404, 500):
        server.fails = lambda _, failure=failure: failure
        for ask in (lambda: open_slide(address), lambda: slide.read(0, 0, 1024, 1024)):
            with pytest.raises(SlideError, match="ihc") as raised:
                ask()
            assert "SECRET" not in "".join(traceback.format_exception(raised.value))
            seen = raised.value
            while seen is not None:
                assert type(pickle.loads(pickle.dumps(seen))) is type(seen)
                assert "SECRET" not in repr(seen)
                seen = seen.__cause__ or seen.__context__
    assert "SECRET" not in repr(slide)
    assert "SECRET" not in str(slide.path)


def test_an_unknown_protocol_and_a_missing_package_say_so():
    with pytest.raises(UnsupportedSlide, match="no protocol"):
        open_slide("nosuch://host/a.svs")
    code = (
        "import sys; sys.modules['aiohttp'] = sys.modules['s3fs'] = sys.modules['gcsfs'] = None\n"
        "from wsi_her2.slides.slide import open_slide\n"
        "for url in ('https://h/a.svs', 's3://b/a.svs', 'gs://b/a.svs'):\n"
        "    try: open_slide(url)\n"
        "    except ImportError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    http, s3, gs = done.stdout.splitlines()
    assert http.startswith(MissingExtra.__name__)
    assert "pip install 'wsi-her2[cloud]'" in http
    assert "pip install 'wsi-her2[cloud]'" in s3
    assert "pip install gcsfs" in gs


# Files of fsspec


def test_a_remote_file_reads_as_a_file_does(server, ihc_slide_path):
    with ihc_slide_path.open("rb") as here, RemoteFile(SlideUrl(f"{server.url}/ihc.tif")) as there:
        size = ihc_slide_path.stat().st_size
        for offset, whence, count in ((0, 0, 10), (BLOCK_BYTES - 3, 0, 7), (-5, 2, 100), (-9, 1, 4), (size, 0, 1)):
            assert there.seek(offset, whence) == here.seek(offset, whence)
            assert there.read(count) == here.read(count)
            assert there.tell() == here.tell()
        there.seek(0)
        assert there.read() == ihc_slide_path.read_bytes()
        with pytest.raises(ValueError, match="before the beginning"):
            there.seek(-1)


def test_the_state_of_a_file_is_its_size_and_the_best_that_says_its_version(server, bucket):
    url, size = SlideUrl(f"{server.url}/ihc.tif"), (server.folder / "ihc.tif").stat().st_size
    first = state_of(url)
    assert first.size == size
    assert state_of(url) == state_of(SlideUrl(f"{url.address}?sig=2")) == first
    server.headers = {"ETag": '"2"'}
    assert state_of(url) != first
    server.headers = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    assert "2024" in state_of(url).version
    server.headers = {}
    assert (state_of(url).size, state_of(url).version) == (size, None)
    bucket.pipe("/lab/a.svs", b"a")
    written = state_of(SlideUrl("memory://lab/a.svs"))
    assert written == state_of(SlideUrl("memory://lab/a.svs"))
    bucket.pipe("/lab/a.svs", b"b")
    assert state_of(SlideUrl("memory://lab/a.svs")) != written


def test_a_folder_is_searched_through_and_a_file_taken_whatever_its_ending(bucket):
    for name in ("b.svs", "x/a b.TIF", "notes.txt", ".hidden/c.svs", "x/.d.svs"):
        bucket.pipe(f"/lab/slides/{name}", b"")
    bucket.pipe("/lab/slides-2/e.svs", b"")
    for given in ("memory://lab/slides", "memory://lab/slides/"):
        found = [str(url) for url in slides_at(SlideUrl(given), SUFFIXES)]
        assert found == ["memory://lab/slides/b.svs", "memory://lab/slides/x/a b.TIF"]
    assert slides_at(SlideUrl("memory://lab/slides/notes.txt"), SUFFIXES) == [
        SlideUrl("memory://lab/slides/notes.txt")
    ]
    bucket.pipe("/lab/slides/late.svs", b"")
    assert len(slides_at(SlideUrl("memory://lab/slides"), SUFFIXES)) == 3
    with pytest.raises(SlideNotFound, match="memory://lab/absent: no such file"):
        slides_at(SlideUrl("memory://lab/absent"), SUFFIXES)


def test_over_http_files_are_taken_and_folders_refused(server):
    url = SlideUrl(f"{server.url}/ihc.tif")
    assert slides_at(url, SUFFIXES) == [url]
    with pytest.raises(UnsupportedSlide, match="cannot be searched over HTTP"):
        slides_at(SlideUrl(f"{server.url}/"), SUFFIXES)
    with pytest.raises(SlideNotFound):
        slides_at(SlideUrl(f"{server.url}/absent.svs"), SUFFIXES)


# Object storage


@pytest.fixture
def s3(monkeypatch, ihc_slide_path):
    """An S3 server with the small slide as `s3://lab/slides/ihc.tif`."""
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("lab")
    fs.put(str(ihc_slide_path), "lab/slides/ihc.tif")
    fs.pipe("lab/slides/notes.txt", b"no slide")
    yield fs
    fs.rm("lab", recursive=True)
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_slide_in_s3_is_found_read_and_known_by_its_version(s3, ihc_slide_path, tmp_path):
    found = slides_at(SlideUrl("s3://lab/slides/"), SUFFIXES)
    assert [str(url) for url in found] == ["s3://lab/slides/ihc.tif"]
    assert slides_at(SlideUrl("s3://lab/slides"), SUFFIXES) == slides_at(SlideUrl("s3://lab"), SUFFIXES) == found
    assert slides_at(SlideUrl("s3://lab/empty/"), SUFFIXES) == []
    before = state_of(found[0])
    assert before.size == ihc_slide_path.stat().st_size
    with open_slide("s3://lab/slides/ihc.tif") as there, open_slide(ihc_slide_path, backend="tiffslide") as here:
        np.testing.assert_array_equal(there.read(450, 250, 700, 600), here.read(450, 250, 700, 600))
    assert state_of(found[0]) == before
    copy = tmp_path / "ihc.tif"
    shutil.copy(ihc_slide_path, copy)
    with copy.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    s3.put(str(copy), "lab/slides/ihc.tif")
    assert state_of(found[0]) != before


def test_what_s3_refuses_or_does_not_have_says_so(s3, monkeypatch):
    with pytest.raises(SlideNotFound, match="no such file"):
        open_slide("s3://lab/absent.svs")
    with pytest.raises(SlideNotFound):
        open_slide("s3://nosuchbucket/a.svs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    type(s3).clear_instance_cache()
    with pytest.raises(SlideForbidden, match="Give the credentials"):
        open_slide("s3://lab/slides/ihc.tif")
