"""Instants: one moment, one text."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules.instant import format_instant, parse_instant

moments = st.datetimes(min_value=datetime(1000, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - Hypothesis wants naive bounds and adds the zone itself


@given(moments)
def test_an_instant_comes_back_to_the_second(moment: datetime) -> None:
    assert parse_instant(format_instant(moment)) == moment.replace(microsecond=0)


@given(moments, st.integers(-14 * 60, 14 * 60))
def test_the_zone_of_the_writer_does_not_matter(moment: datetime, minutes: int) -> None:
    assert format_instant(moment.astimezone(timezone(timedelta(minutes=minutes)))) == format_instant(moment)


@given(moments, moments)
def test_texts_sort_like_the_instants(left: datetime, right: datetime) -> None:
    if format_instant(left) < format_instant(right):
        assert left < right


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22T00:10:00",
        "2026-11-22T00:10:00+00:00",
        "2026-11-22t00:10:00z",
        "2026-11-22T00:10:00.0Z",
        "2026-11-22 00:10:00Z",
        " 2026-11-22T00:10:00Z",
        "2026-11-22T00:10:00Z\n",
        "2026-13-22T00:10:00Z",
        "2026-02-29T00:10:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T00:60:00Z",
        "\u0662\u0660\u0662\u0666-11-22T00:10:00Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(PeerError, match="is not an instant") as refused:
        parse_instant(text)
    assert "2026-11-22T00:10:00Z" in refused.value.remedy


def test_an_instant_without_zone_is_the_caller_s_mistake() -> None:
    with pytest.raises(ValueError, match="time zone"):
        format_instant(datetime(2026, 11, 22))  # noqa: DTZ001 - the mistake under test
