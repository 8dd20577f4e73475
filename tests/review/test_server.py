"""The routes of the review server, over HTTP."""

from __future__ import annotations

import httpx


def test_the_list_has_a_row_for_each_slide_with_numbers_as_numbers(client: httpx.Client) -> None:
    rows = {row["slide_id"]: row for row in client.get("/api/run").json()["slides"]}

    assert list(rows) == ["7_HER2", "12_HE", "12_HER2", "30_HER2"]
