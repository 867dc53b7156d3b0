import csv
import io
from collections import Counter
from decimal import Decimal

import pytest

from clients.demo.studies import HEART, PLACEHOLDER, STUDIES, WEATHER, DemoStudy
from federation.learning.models import parameter_count
from federation.rules.accounting import derive_noise_multiplier, epsilon, round_event
from federation.rules.aggregation import integer_weights
from federation.rules.encoding import by_subject, parse_rows
from federation.rules.study import plan_from_toml

studies = pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)


@studies
def test_every_published_row_keeps_the_schema_contract(study: DemoStudy) -> None:
    schema = study.plan().schema_contract
    names: set[str] = set()
    for site in study.sites:
        rows = parse_rows(schema, csv.DictReader(io.StringIO(study.csv_text(site))), source=site)
        batch = by_subject(schema, rows)
        assert not names & set(batch.subjects), "a subject's name is used at two sites"
        names |= set(batch.subjects)


@studies
def test_plan_binds_as_many_sites_as_the_study_has(study: DemoStudy) -> None:
    plan = study.plan()
    assert plan.rounds.participants == len(study.sites)
    assert plan.rounds.quorum < plan.rounds.participants, "one site may fail"
    nominal = {slug: site.nominal_cohort for slug, site in study.sites.items()}
    assert integer_weights(nominal, plan.aggregation.weight_cap) == nominal, "the cap changes nothing here"
    assert (plan.consent.kind == "licence") is study.licence


@studies
def test_demo_stays_within_the_privacy_that_was_promised(study: DemoStudy) -> None:
    plan = study.plan()
    noise = derive_noise_multiplier(plan)
    spent = epsilon([round_event(plan)] * plan.rounds.count, delta=plan.privacy.delta, order=plan.privacy.order)
    assert plan.privacy.delta <= Decimal("1e-5")
    assert spent <= plan.privacy.epsilon <= 3
    assert noise >= 2


@pytest.mark.parametrize(
    ("asked", "rounds"), [(0.1, 15), (0.5, 15), (1, 15), (2, 5), (2.5, 15), (3, 3), (3, 200), (8, 15), (1, 200)]
)
def test_another_epsilon_gets_an_order_that_holds_it(asked: float, rounds: int) -> None:
    plan = HEART.plan(epsilon=asked, rounds=rounds)
    assert plan.privacy.epsilon == Decimal(str(asked))
    assert plan.rounds.count == rounds
    assert derive_noise_multiplier(plan) >= 2


def test_the_plan_s_own_figures_stay_when_asked_for_by_name() -> None:
    assert HEART.plan(epsilon=3, rounds=15) == HEART.plan()
    assert WEATHER.plan(epsilon=3, rounds=15) == WEATHER.plan()


def test_placeholders_are_filled_once_and_only_they() -> None:
    text = HEART.plan_toml(commitment="a" * 64, code_approved="b" * 64)
    plan = plan_from_toml(text, source="heart")
    assert plan.validation.commitment == "a" * 64
    assert plan.code_approved == ("b" * 64,)
    assert PLACEHOLDER not in text.split("version = 1")[1]


def test_heart_rows_are_those_of_the_four_hospitals() -> None:
    rows = {site: list(csv.DictReader(io.StringIO(HEART.csv_text(site)))) for site in HEART.sites}
    assert {site: len(found) for site, found in rows.items()} == {
        "cleveland": 303,
        "hungary": 294,
        "switzerland": 123,
        "va_long_beach": 200,
    }
    positive = {site: Counter(row["disease"] for row in found)["present"] for site, found in rows.items()}
    assert positive == {"cleveland": 139, "hungary": 106, "switzerland": 115, "va_long_beach": 149}
    assert rows["hungary"][0]["age"] == "28", "the row that the source gives to Cleveland"
    assert all(row["chol"] == "" for row in rows["switzerland"]), "a cholesterol of 0 is a gap"


def test_a_day_owns_its_moments() -> None:
    schema = WEATHER.plan().schema_contract
    for site in WEATHER.sites:
        days = Counter(row["station_day"] for row in csv.DictReader(io.StringIO(WEATHER.csv_text(site))))
        assert len(days) == 364
        assert max(days.values()) <= schema.records_per_subject_max
        assert list(days) == sorted(days)


def test_models_are_small_enough_for_the_privacy() -> None:
    assert {name: parameter_count(study.plan()) for name, study in STUDIES.items()} == {"heart": 36, "weather": 17}
