from typing import Any

import pytest

from clients.demo.findings import (
    comparison_sentences,
    credits_text,
    names_text,
    result_sentence,
    reward_sentences,
    signed_text,
    sites_of,
    withdrawals,
)
from clients.demo.studies import HEART, WEATHER


def test_a_difference_is_clear_only_when_its_interval_leaves_out_zero(heart: dict[str, Any]) -> None:
    heart["summary"] |= {"gain": 0.02, "gain_low": 0.001, "gain_high": 0.04}
    assert result_sentence(heart, HEART).endswith("a clear gain.")
    heart["summary"] |= {"gain": 0.02, "gain_low": -0.001}
    assert result_sentence(heart, HEART).endswith("no clear difference.")
    heart["summary"] |= {"gain": -0.02, "gain_low": -0.04, "gain_high": -0.001}
    assert result_sentence(heart, HEART).endswith("a clear loss.")


def test_winners_and_losers_are_named(heart: dict[str, Any]) -> None:
    sites = heart["sites"]
    sites["cleveland"] |= {"gain": -0.03, "gain_low": -0.05, "gain_high": -0.01}
    sites["va_long_beach"] |= {"gain": 0.05, "gain_low": 0.01, "gain_high": 0.09}
    words = comparison_sentences(heart, HEART)[0]
    assert "Clear gain over training alone: VA Long Beach (+0.050)." in words
    assert "Clear loss: Cleveland (−0.030)." in words
    assert [site.verdict for site in sites_of(heart, HEART)] == ["loss", "unclear", "unclear", "gain"]


def test_few_rows_of_the_rarer_answer_are_told(heart: dict[str, Any]) -> None:
    assert any("Switzerland (2 of 25 without)" in sentence for sentence in comparison_sentences(heart, HEART))


def test_weather_says_that_pooling_gave_no_gain(weather: dict[str, Any]) -> None:
    words = " ".join(comparison_sentences(weather, WEATHER))
    assert "Pooling gave no clear gain here" in words
    assert "Against persistence" in words
    weather["summary"]["gain_low"] = 0.01
    assert "Pooling gave no clear gain" not in " ".join(comparison_sentences(weather, WEATHER))


def test_figures_vary_is_said(report: dict[str, Any]) -> None:
    study = HEART if report["study"]["name"] == "heart" else WEATHER
    assert "secret noise" in comparison_sentences(report, study)[-1]


def test_withdrawals_come_from_events_or_from_the_counts(heart: dict[str, Any]) -> None:
    told = withdrawals(heart, HEART)
    assert told == {9: "10 withdrew at Cleveland"}
    del heart["events"]
    assert withdrawals(heart, HEART) == told


def test_unpaid_and_burned_are_told(heart: dict[str, Any]) -> None:
    assert any("None were burned" in sentence for sentence in reward_sentences(heart, HEART))
    heart["ledger"]["burned"] = 5_000_000
    heart["sites"]["switzerland"]["reward_microcredits"] = 0
    words = " ".join(reward_sentences(heart, HEART))
    assert "5.00 credits were burned" in words
    assert "No credits for Switzerland" in words


@pytest.mark.parametrize(
    ("names", "text"), [([], "none"), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_names(names: list[str], text: str) -> None:
    assert names_text(names) == text


def test_numbers_as_people_write_them() -> None:
    assert signed_text(-0.0104) == "−0.010"
    assert signed_text(0.5, 4) == "+0.5000"
    assert credits_text(1_234_567_890) == "1,234.57"
