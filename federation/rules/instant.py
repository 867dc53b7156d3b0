"""Instants on the wire: UTC, seconds, one text for one instant (a profile of RFC 3339)."""

import re
from datetime import UTC, datetime
from typing import Final

from federation.errors import PeerError

_FORM: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)


def format_instant(instant: datetime) -> str:
    """``2026-11-22T00:10:00Z``; fractions of a second are cut off.

    Raises:
        ValueError: the datetime has no time zone (a mistake of the caller).
    """
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_instant(text: str) -> datetime:
    """Read an instant in exactly the form of :func:`format_instant`; the result is aware, UTC.

    Raises:
        PeerError: any other text.
    """
    try:
        if not _FORM.fullmatch(text):
            raise ValueError("wrong form")
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise PeerError(
            f"{text[:40]!r} is not an instant.", remedy="Write it as 2026-11-22T00:10:00Z (UTC, whole seconds)."
        ) from error
