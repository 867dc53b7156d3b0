"""Accounting against closed forms, against dp_accounting itself, and under hostile events."""

import math
from decimal import Decimal
from typing import Any

import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PrivacyError
from federation.rules.accounting import (
    NOISE_MULTIPLIER_MIN,
    best_order,
    count_event,
    derive_noise_multiplier,
    epsilon,
    pld_epsilon,
    round_event,
    study_event,
)
from federation.rules.events import (
    QUANTUM,
    ComposedEvent,
    DpEvent,
    GaussianEvent,
    PoissonEvent,
    RepeatedEvent,
    event_json,
    mechanisms,
    read_event,
    to_dp_event,
)
from federation.rules.study import StudyPlan

DELTA = Decimal("1e-5")


def plan(**changes: Any) -> StudyPlan:
    document: dict[str, Any] = {
        "name": "accounted",
        "title": "A study",
        "sponsor": "sponsor",
        "origin": "accord.test/accounted",
        "purpose": {"duo": "DUO:0000042", "statement": "Testing."},
        "schema": {
            "subject": "person",
            "columns": [{"type": "number", "name": "age", "low": "0", "high": "100"}],
            "label": {"name": "ill", "negative": "no", "positive": "yes"},
        },
        "model": {"family": "logistic"},
        "privacy": {"unit": "subject", "epsilon": "3", "delta": "1e-5", "clip": "1"},
        "training": {"learning_rate": "0.5"},
        "rounds": {"count": 15, "participants": 2, "quorum": 1, "deadline_s": 10},
        "cohort": {"minimum": 5},
        "aggregation": {"rule": "weighted-mean", "norm_bound": "10"},
        "valuation": {"method": "shapley", "utility": "negative-log-loss"},
        "reward": {"pool_microcredits": 1000},
        "validation": {"rule": "none", "commitment": "0" * 64},
        "code_approved": ["0" * 64],
    }
    for section, fields in changes.items():
        document[section] = {**document[section], **fields}
    return StudyPlan.model_validate(document)


def gaussian(noise: str) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=Decimal(noise))


def closed_form(inverse_squares: float, *, delta: float, order: int) -> float:
    """Gaussian: RDP(a) = a sum(1 / sigma^2) / 2; conversion by Canonne, Kamath and Steinke, proposition 12."""
    renyi = order * inverse_squares / 2
    return renyi + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


noises = st.decimals(min_value="0.5", max_value="50", places=3)
gaussians = st.builds(GaussianEvent, noise_multiplier=noises)
poissons = st.builds(PoissonEvent, rate=st.decimals(min_value="0.01", max_value="1", places=2), event=gaussians)
events: st.SearchStrategy[DpEvent] = st.recursive(
    gaussians | poissons,
    lambda inner: (
        st.builds(RepeatedEvent, count=st.integers(1, 5), event=inner)
        | st.builds(ComposedEvent, events=st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("order", [2, 8, 32, 256])
def test_gaussian_rounds_have_the_closed_form(order: int) -> None:
    study = [gaussian("6"), gaussian("20")] * 15
    expected = closed_form(15 / 36 + 15 / 400, delta=1e-5, order=order)
    assert epsilon(study, delta=DELTA, order=order) == pytest.approx(expected, abs=1e-9)


def test_nothing_happened_costs_nothing() -> None:
    assert epsilon([], delta=DELTA, order=8) == 0.0
    assert pld_epsilon([], DELTA) == 0.0


@given(event=events, order=st.integers(2, 64))
def test_epsilon_is_that_of_dp_accounting(event: DpEvent, order: int) -> None:
    accountant = RdpAccountant(orders=[order])
    accountant.compose(to_dp_event(event))
    assert epsilon([event], delta=DELTA, order=order) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9, abs=1e-9)


@given(first=events, second=events)
def test_more_events_never_cost_less_and_order_does_not_matter(first: DpEvent, second: DpEvent) -> None:
    one, both = (epsilon(part, delta=DELTA, order=8) for part in ([first], [first, second]))
    assert one <= both
    assert both == epsilon([second, first], delta=DELTA, order=8)


def test_a_round_is_its_steps_and_one_noisy_count() -> None:
    study = plan(
        training={"learning_rate": "0.5", "local_steps": 4},
        privacy={"sampling_rate": "0.25", "cohort_noise_multiplier": "12.5"},
    )
    noise = derive_noise_multiplier(study)
    assert round_event(study) == {
        "type": "composed",
        "events": [
            {
                "type": "repeated",
                "count": 4,
                "event": {
                    "type": "poisson",
                    "rate": "0.25",
                    "event": event_json(GaussianEvent(noise_multiplier=noise)),
                },
            },
            {"type": "gaussian", "noise_multiplier": "12.5"},
        ],
    }
    assert count_event(study) == {"type": "gaussian", "noise_multiplier": "12.5"}
    assert mechanisms(study_event(study)) == mechanisms(*[round_event(study)] * study.rounds.count)


def test_a_full_batch_step_is_a_plain_gaussian() -> None:
    study = plan()
    noise = event_json(GaussianEvent(noise_multiplier=derive_noise_multiplier(study)))
    assert round_event(study) == {"type": "composed", "events": [noise, {"type": "gaussian", "noise_multiplier": "20"}]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"privacy": {"epsilon": "1", "order": 20}},
        {"privacy": {"epsilon": "8"}},
        {"training": {"local_steps": 7}},
        {"rounds": {"count": 200}, "privacy": {"cohort_noise_multiplier": "60"}},
    ],
)
def test_the_derived_noise_is_the_smallest_that_keeps_the_plan(changes: dict[str, Any]) -> None:
    study = plan(**changes)
    noise = derive_noise_multiplier(study)
    cap, steps = float(study.privacy.epsilon), study.training.local_steps

    def spent(multiplier: Decimal) -> float:
        step = RepeatedEvent(count=steps, event=GaussianEvent(noise_multiplier=multiplier))
        rounds = [step, read_event(count_event(study))] * study.rounds.count
        return epsilon(rounds, delta=study.privacy.delta, order=study.privacy.order)

    assert noise % QUANTUM == 0
    assert spent(noise) <= cap
    assert noise == NOISE_MULTIPLIER_MIN or spent(noise - QUANTUM) > cap
    everything = epsilon([study_event(study)], delta=study.privacy.delta, order=study.privacy.order)
    assert everything == pytest.approx(spent(noise), abs=1e-12)


def test_the_noise_is_never_below_two() -> None:
    generous = plan(privacy={"epsilon": "8", "sampling_rate": "0.01"}, rounds={"count": 1})
    assert derive_noise_multiplier(generous) == NOISE_MULTIPLIER_MIN


def test_an_impossible_plan_is_refused_with_an_order_that_serves() -> None:
    with pytest.raises(PrivacyError, match="No noise is strong enough") as refusal:
        derive_noise_multiplier(plan(privacy={"epsilon": "1"}))
    assert "privacy.order between 12 and 45" in refusal.value.remedy
    assert derive_noise_multiplier(plan(privacy={"epsilon": "1", "order": 12})) > 2
    with pytest.raises(PrivacyError) as hopeless:
        derive_noise_multiplier(plan(privacy={"epsilon": "0.01", "cohort_noise_multiplier": "2"}))
    assert "cohort_noise_multiplier" in hopeless.value.remedy


def test_the_best_order_needs_the_least_noise() -> None:
    assert best_order(plan()) == 8
    small = plan(privacy={"epsilon": "1"})
    order = best_order(small)
    noises = [
        derive_noise_multiplier(plan(privacy={"epsilon": "1", "order": n})) for n in (order - 1, order, order + 1)
    ]
    assert min(noises) == noises[1]
    with pytest.raises(PrivacyError):
        best_order(plan(privacy={"epsilon": "0.01", "cohort_noise_multiplier": "2"}))


def test_gaussians_have_their_exact_loss_distribution() -> None:
    """One Gaussian of precision p: delta(eps) = Phi(-eps/mu + mu/2) - e^eps Phi(-eps/mu - mu/2), mu = sqrt(p)."""
    figure = pld_epsilon([gaussian("6")] * 15 + [gaussian("20")] * 15, DELTA)
    mu = math.sqrt(15 / 36 + 15 / 400)

    def normal(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    delta = normal(-figure / mu + mu / 2) - math.exp(figure) * normal(-figure / mu - mu / 2)
    assert delta == pytest.approx(1e-5, rel=0.01)
    assert figure < epsilon([gaussian("6")] * 15 + [gaussian("20")] * 15, delta=DELTA, order=8)


@pytest.mark.parametrize(
    "event",
    [
        gaussian("0.000001"),
        gaussian("1000000"),
        PoissonEvent(rate=Decimal("0.05"), event=gaussian("0.01")),
        RepeatedEvent(count=20_000, event=PoissonEvent(rate=Decimal("0.05"), event=gaussian("1"))),
        RepeatedEvent(count=1_000_000, event=PoissonEvent(rate=Decimal("0.5"), event=gaussian("0.5"))),
        ComposedEvent(events=tuple(PoissonEvent(rate=Decimal("0.5"), event=gaussian(str(n))) for n in range(2, 40))),
    ],
)
def test_loss_distributions_are_bounded_whatever_the_event(event: DpEvent) -> None:
    figure = pld_epsilon([event], DELTA)
    assert figure >= 0
    assert not math.isnan(figure)


@pytest.mark.parametrize("rate", ["0.1", "0.5"])
def test_sampled_loss_distributions_stay_below_the_filter(rate: str) -> None:
    study = [PoissonEvent(rate=Decimal(rate), event=gaussian("2"))] * 30
    best = min(epsilon(study, delta=DELTA, order=order) for order in range(2, 65))
    assert 0 < pld_epsilon(study, DELTA) <= best
