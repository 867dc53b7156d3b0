import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.demo.split import Split, draw_consents, draw_withdrawals, split_rows
from clients.demo.studies import HEART, STUDIES, WEATHER, DemoStudy

studies = pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)


def subjects(split: Split, study: DemoStudy, part: str, site: str) -> set[str]:
    column = study.plan().schema_contract.subject
    return {row[column] for row in getattr(split, part)[site]}


@studies
def test_sponsor_s_fifth_is_apart_and_nothing_is_lost(study: DemoStudy) -> None:
    split = split_rows(study, study.plan(), seed=3)
    for site in study.sites:
        kept, apart = subjects(split, study, "training", site), subjects(split, study, "held_out", site)
        assert not kept & apart
        assert len(split.training[site]) + len(split.held_out[site]) == study.csv_text(site).count("\n") - 1
        assert abs(len(apart) - (len(kept) + len(apart)) / 5) <= 1


def test_heart_is_stratified_by_diagnosis() -> None:
    split = split_rows(HEART, HEART.plan(), seed=3)
    counts = Counter(row["disease"] for row in split.held_out["switzerland"])
    assert counts == {"present": 23, "absent": 2}


def test_weather_keeps_the_order_of_time() -> None:
    split = split_rows(WEATHER, WEATHER.plan(), seed=3)
    assert split == split_rows(WEATHER, WEATHER.plan(), seed=4)
    for site in WEATHER.sites:
        assert max(subjects(split, WEATHER, "training", site)) < min(subjects(split, WEATHER, "held_out", site))


def test_seed_alone_decides() -> None:
    plan = HEART.plan()
    assert split_rows(HEART, plan, seed=3) == split_rows(HEART, plan, seed=3)
    assert split_rows(HEART, plan, seed=3) != split_rows(HEART, plan, seed=4)


def test_files_hold_exactly_the_rows(tmp_path: Path) -> None:
    split = split_rows(HEART, HEART.plan(), seed=3)
    split.write_training("hungary", tmp_path / "hungary.csv")
    split.write_validation(tmp_path / "validation.csv")
    with (tmp_path / "hungary.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [dict(row) for row in split.training["hungary"]]
    with (tmp_path / "validation.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(len(rows) for rows in split.held_out.values())


def test_files_are_never_overwritten(tmp_path: Path) -> None:
    split = split_rows(HEART, HEART.plan(), seed=3)
    split.write_training("hungary", tmp_path / "hungary.csv")
    with pytest.raises(FileExistsError):
        split.write_training("hungary", tmp_path / "hungary.csv")


@given(count=st.integers(3, 400), seed=st.integers(0, 2**32))
def test_about_a_tenth_say_no_and_a_thirtieth_lapse(count: int, seed: int) -> None:
    names = [f"p{number}" for number in range(count)]
    words = draw_consents(HEART, "hungary", names, seed)
    counts = Counter(words.values())
    assert set(words) == set(names)
    assert counts["refuse"] == max(1, round(count / 10))
    assert counts["expire"] == max(1, round(count / 30))
    assert words == draw_consents(HEART, "hungary", reversed(names), seed), "the file's order changes nothing"


@given(seed=st.integers(0, 2**32), count=st.integers(0, 30))
def test_only_who_said_yes_can_withdraw(seed: int, count: int) -> None:
    words = draw_consents(HEART, "cleveland", [f"p{number}" for number in range(242)], seed)
    gone = draw_withdrawals(HEART, "cleveland", words, seed, count)
    assert len(set(gone)) == count
    assert {words[name] for name in gone} <= {"grant"}
