"""A URL names a slide as a path does, and keeps its credentials to itself."""

import pickle
from pathlib import Path

import pytest

from wsi_her2.errors import UnsupportedSlide
from wsi_her2.slides.location import SlideUrl, locate, was_url, without_credentials


@pytest.mark.parametrize("given", ["a.svs", "/slides/a b.svs", "C:/slides/a.svs", "https:/host/a.svs", "a://b"])
def test_what_is_no_url_stays_a_path(given):
    assert locate(given) == Path(given)
    assert isinstance(locate(Path(given)), Path)


def test_a_file_url_is_a_path():
    assert locate("file:///slides/case%201.svs") == Path("/slides/case 1.svs")


@pytest.mark.parametrize(
    ("address", "shown", "name", "stem", "suffix"),
    [
        ("https://host/a/case_7.ndpi", "https://host/a/case_7.ndpi", "case_7.ndpi", "case_7", ".ndpi"),
        ("s3://bucket/a/Case 7.b.SVS", "s3://bucket/a/Case 7.b.SVS", "Case 7.b.SVS", "Case 7.b", ".SVS"),
        ("https://host/%C3%A4%207.svs", "https://host/%C3%A4%207.svs", "ä 7.svs", "ä 7", ".svs"),
        ("https://host/a%2Fb.svs", "https://host/a%2Fb.svs", "b.svs", "b", ".svs"),
        ("https://host/a.svs?x-sig=SECRET/b.tif", "https://host/a.svs", "a.svs", "a", ".svs"),
        ("https://host/a.svs#SECRET", "https://host/a.svs", "a.svs", "a", ".svs"),
        ("s3://bucket/case #7.svs", "s3://bucket/case #7.svs", "case #7.svs", "case #7", ".svs"),
        ("s3://bucket/a.svs?versionId=SECRET", "s3://bucket/a.svs", "a.svs", "a", ".svs"),
        ("https://me:SECRET@host:8443/a.svs", "https://host:8443/a.svs", "a.svs", "a", ".svs"),
        ("https://SECRET@host/a@b.svs", "https://host/a@b.svs", "a@b.svs", "a@b", ".svs"),
        ("ftp://me:SEC@RET@host/a.svs", "ftp://host/a.svs", "a.svs", "a", ".svs"),
        ("abfss://box@lab.azure.net/a.svs", "abfss://box@lab.azure.net/a.svs", "a.svs", "a", ".svs"),
        ("abfss://me:SECRET@lab.azure.net/a.svs", "abfss://lab.azure.net/a.svs", "a.svs", "a", ".svs"),
        ("s3://bucket/slides/", "s3://bucket/slides/", "slides", "slides", ""),
        ("https://host", "https://host", "host", "host", ""),
    ],
)  # fmt: skip
def test_a_url_is_named_and_shown_without_its_credentials(address, shown, name, stem, suffix):
    url = locate(address)
    assert isinstance(url, SlideUrl)
    assert (str(url), url.name, url.stem, url.suffix) == (shown, name, stem, suffix)
    assert "SECRET" not in repr(url)
    assert "SECRET" not in repr({"path": url})


def test_a_url_travels_between_processes_with_its_credentials():
    url = SlideUrl("https://me:secret@host/a.svs?sig=1")
    assert pickle.loads(pickle.dumps(url)).address == "https://me:secret@host/a.svs?sig=1"
    assert {url: 1}[SlideUrl(url.address)] == 1
    assert url != SlideUrl("https://me:secret@host/a.svs?sig=2")


def test_a_file_below_a_folder_keeps_what_opens_the_folder():
    assert SlideUrl("abfs://box/slides/?sig=1").below("x/a.svs").address == "abfs://box/slides/x/a.svs?sig=1"
    assert SlideUrl("s3://bucket/slides").below("x/a.svs").address == "s3://bucket/slides/x/a.svs"


def test_a_chain_of_urls_is_refused_without_showing_credentials():
    with pytest.raises(UnsupportedSlide, match="chains of URLs") as raised:
        locate("zip://a.svs::https://me:secret@host/a.zip?sig=secret")
    assert "secret" not in str(raised.value)


def test_texts_lose_the_credentials_of_all_urls_in_them():
    text = "GET 'https://a:secret@h/x.svs?t=secret' failed, so did s3://b/y.svs?secret, mail me@host, is it 3?"
    assert without_credentials(text) == "GET 'https://h/x.svs' failed, so did s3://b/y.svs mail me@host, is it 3?"


def test_a_url_that_went_through_a_path_is_recognised():
    assert was_url(Path("s3://bucket/a.svs"))
    assert was_url(Path("https://host/out"))
    assert not was_url(Path("results/a:b"))
    assert not was_url(Path("C:/results"))
