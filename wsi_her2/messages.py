"""Somebody else's words in our messages: cut short, because a hostile file can make them as long as it is."""

from __future__ import annotations

from typing import Any, Protocol

LONGEST_QUOTE = 300
"""Characters of somebody else's words in a message of ours; they may come from the file, and be as long as it."""

MOST_FIELDS = 10
"""Wrong fields that a message names."""


def shortened(said: object, most: int = LONGEST_QUOTE) -> str:
    """Words from elsewhere as part of a message: on one line, and not longer than somebody reads."""
    # Cut first: the words can be megabytes, and only their beginning is looked at.
    text = " ".join(str(said)[: 4 * most].split())
    return text if len(text) <= most else f"{text[:most]}..."


def words_of(error: BaseException, most: int = LONGEST_QUOTE) -> str:
    """What an error of another library says, as part of a message; its kind where it says nothing."""
    return shortened(error, most) or type(error).__name__


class _Described(Protocol):
    """What pydantic's `ValidationError` offers; the library is not needed to say what is wrong."""

    def errors(self) -> list[Any]: ...


def wrong_fields(error: _Described) -> str:
    """What a validation found wrong: the first fields by name, each with the reason."""
    found = error.errors()
    said = []
    for item in found[:MOST_FIELDS]:
        field = shortened(".".join(map(str, item["loc"])), 100)
        # What is wrong with several fields together belongs to none.
        said.append(f"{field}: {shortened(item['msg'])}" if field else shortened(item["msg"]))
    more = len(found) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")
