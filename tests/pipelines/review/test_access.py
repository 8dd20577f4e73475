"""Who may ask the review server for what."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import httpx
import pytest

from pipelines.review.access import PAGE_POLICY, Access, is_loopback
from tests.pipelines.review.conftest import Serve

REVIEW = {"verdict": "unsure", "score": None, "reason": "", "comment": "", "reviewer": "Ada"}
ADDRESSES = (
    "/",
    "/slide/7_HER2",
    "/api/run",
    "/api/slides/7_HER2",
    "/report/7_HER2",
    "/run/",
    "/nowhere",
    "/api/nowhere",
)


def own(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def status_of_raw(client: httpx.Client, request: str) -> int:
    """The status of an answer to a request as it is typed, which a client library would not send."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=30) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        return int(connection.recv(4096).split(b" ", 2)[1])


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.0.0.1:9999", "LOCALHOST:1", "[::1]:8000"])
def test_the_server_answers_to_the_names_of_this_machine_on_any_port(client: httpx.Client, name: str) -> None:
    # The port may be another one at the other end of a tunnel.
    assert client.get("/api/run", headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.7", "", "[::1"]
)
def test_a_request_under_another_name_is_refused_whatever_it_asks_for(client: httpx.Client, name: str) -> None:
    for address in ADDRESSES:
        refused = client.get(address, headers={"host": name})
        assert refused.status_code == 421
        assert "--host" in refused.json()["error"]


def test_a_request_with_two_names_or_none_is_refused(client: httpx.Client) -> None:
    two = "GET /api/run HTTP/1.1\nHost: 127.0.0.1\nHost: evil.example\nConnection: close\n\n"
    assert status_of_raw(client, two) in (400, 421)
    assert status_of_raw(client, "GET /api/run HTTP/1.0\n\n") in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2"])
def test_this_machine_alone_needs_no_token_but_may_have_one(host: str) -> None:
    assert is_loopback(host.strip("[]"))
    assert Access.to(host).token is None
    assert Access.to(host, "given").token == "given"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "pathology.example"])
def test_other_machines_need_a_token_which_is_made_where_none_is_given(host: str) -> None:
    made = Access.to(host)
    assert made.token is not None
    assert len(made.token) >= 32
    assert made.token != Access.to(host).token
    assert Access.to(host, "given").token == "given"
    assert made.token not in repr(made)
    assert made.session not in repr(made)


def test_all_addresses_of_a_machine_are_answered_by_number_and_by_its_own_name_only() -> None:
    access = Access.to("0.0.0.0")
    assert all(access.answers_to(name) for name in ("192.168.1.5:8000", "[fe80::1]:80", socket.gethostname()))
    assert not any(access.answers_to(name) for name in ("evil.example", "192.168.1.5.evil.example", "1.2.3"))
    named = Access.to("pathology.example")
    assert named.answers_to("PATHOLOGY.example:8000")
    assert not named.answers_to("192.168.1.5")


def test_without_the_token_nothing_is_given_away(review_run: Path, serve: Serve) -> None:
    client = serve(review_run, access=Access.to("127.0.0.1", "secret"))
    for address in (*ADDRESSES, "/?token=wrong", "/api/run?token=", "/?token=secret&token=secret"):
        for cookie in ({}, {"cookie": "wsi_her2=secret"}):
            refused = client.get(address, headers=cookie)
            assert refused.status_code == 401
            assert "token" in refused.text
            assert "HER2" not in refused.text.replace("wsi-her2", "")
            assert "set-cookie" not in refused.headers
    posted = client.post("/api/slides/7_HER2/reviews?token=secret", json=REVIEW, headers={"origin": own(client)})
    assert posted.status_code == 401


def test_the_token_is_shown_once_and_then_a_cookie_does(review_run: Path, serve: Serve) -> None:
    access = Access.to("127.0.0.1", "secret")
    client = serve(review_run, access=access)
    shown = client.get("/slide/7_HER2?token=secret&a=b%26c")
    assert shown.status_code == 303
    assert shown.headers["location"] == "/slide/7_HER2?a=b%26c"
    cookie = shown.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secret" not in cookie
    assert client.get("/api/run").status_code == 200
    assert (
        client.post(
            "/api/slides/7_HER2/rescore", json={"regions": {}}, headers={"origin": own(client)}
        ).status_code
        == 422
    )
    # Cookies are not kept by port: that of another server must not take its place.
    assert access.cookie != Access.to("127.0.0.1").cookie


@pytest.mark.parametrize("path", ["//evil.example", "//evil.example/", "/\\evil.example", "/%2f%2fevil.example"])
def test_showing_the_token_never_leads_to_another_host(review_run: Path, serve: Serve, path: str) -> None:
    client = serve(review_run, access=Access.to("127.0.0.1", "secret"))
    host = f"{client.base_url.host}:{client.base_url.port}"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=30) as connection:
        request = f"GET {path}?token=secret HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = connection.recv(65536).decode()
    location = re.search(r"^location: (.*?)\r$", answer, re.MULTILINE)
    if location is not None:
        assert re.match(r"/(?![/\\])", location[1])


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1", "https://localhost:1", "file://"]
)
def test_what_writes_is_only_taken_from_the_servers_own_pages(
    run_copy: Path, serve: Serve, origin: str | None
) -> None:
    client = serve(run_copy)
    headers = {} if origin is None else {"origin": origin}
    for method, address in (("POST", "reviews"), ("PUT", "drawn"), ("POST", "rescore")):
        refused = client.request(method, f"/api/slides/7_HER2/{address}", json=REVIEW, headers=headers)
        assert refused.status_code == 403
        assert "own pages" in refused.json()["error"]
    assert not (run_copy / "reviews.sqlite").exists()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_writes_must_be_json_which_no_foreign_form_can_send(run_copy: Path, serve: Serve, kind: str) -> None:
    client = serve(run_copy)
    headers = {"origin": own(client), "content-type": kind}
    refused = client.post("/api/slides/7_HER2/reviews", content=b"{}", headers=headers)
    assert refused.status_code == 415
    assert not (run_copy / "reviews.sqlite").exists()


def test_no_answer_is_without_the_headers_that_keep_browsers_from_guessing_and_framing(
    client: httpx.Client,
) -> None:
    answers = [client.get(address) for address in (*ADDRESSES, "/static/openseadragon/openseadragon.min.js")]
    answers.append(client.get("/api/run", headers={"host": "evil.example"}))
    answers.append(client.post("/api/slides/7_HER2/reviews"))
    answers.append(client.get("/api/slides/7_HER2/tiles/9/0_0.jpg"))
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    assert client.get("/api/run").headers["content-security-policy"] == PAGE_POLICY
    assert "unsafe" not in PAGE_POLICY


def test_what_is_known_of_slides_is_not_left_in_the_browsers_cache(client: httpx.Client) -> None:
    for address in ("/api/run", "/api/slides/7_HER2", "/api/slides/7_HER2/patches", "/api/reviews.csv"):
        assert client.get(address).headers["cache-control"] == "no-store"
