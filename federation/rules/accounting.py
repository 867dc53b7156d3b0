"""Privacy accounting: how what happened (``federation.rules.events``) is interpreted.

Two readings are offered: the filter's (Renyi divergence at one fixed order; Feldman and Zrnic, "Individual privacy
accounting via a Renyi filter", 2021: sound even where later events depend on earlier results) and, beside it, privacy
loss distributions (tighter, valid only for events that were all fixed beforehand). The Gaussian-DP central limit is
never used: it reports too little.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from federation.errors import OperatorError, PrivacyError
from federation.rules.events import (
    NOISE_MULTIPLIER_MAX,
    QUANTUM,
    ComposedEvent,
    DpEvent,
    EventJson,
    GaussianEvent,
    Mechanism,
    PartEvent,
    PoissonEvent,
    RepeatedEvent,
    RestEvent,
    WholeEvent,
    event_json,
    mechanisms,
    people,
    repeated,
)
from federation.rules.study import StudyPlan
from federation.rules.terms import Overlap
from federation.rules.wire import Wire

NOISE_MULTIPLIER_MIN: Final = Decimal(2)
_CACHED_MAX: Final = 4096
_PLD_CELLS_MAX: Final = 100_000
_PLD_KINDS_MAX: Final = 8
_PLD_REPEATS_MAX: Final = 100_000


def epsilon(events: Iterable[EventJson | DpEvent], *, delta: Decimal, order: int) -> float:
    """Epsilon of all ``events`` together at ``delta``, by Renyi divergence of one fixed ``order``.

    It is that of the person who lost most (:func:`federation.rules.events.people`). No events: 0. The conversion
    (Canonne, Kamath and Steinke 2020, proposition 12) adds a part that depends on order and delta only, so that the
    first event costs far more than the next.
    """
    return max(_filter_epsilon(mechanisms(*lost), delta=delta, order=order) for lost in people(events).values())


def round_event(plan: StudyPlan) -> dict[str, Any]:
    """What one round of the plan costs a subject, as it travels: its local steps, and one noisy count of the cohort.

    Raises:
        PrivacyError: no noise keeps the plan's epsilon (:func:`derive_noise_multiplier`).
    """
    return event_json(_on_its_people(plan, _round_event(plan, derive_noise_multiplier(plan))))


def count_event(plan: StudyPlan) -> dict[str, Any]:
    """What a round costs in which the node counted its cohort and then refused to train."""
    return event_json(_on_its_people(plan, _count_event(plan)))


def scores_event(plan: StudyPlan) -> dict[str, Any]:
    """What it costs the people whom an institution of a panel holds back that it scores on them, once.

    They are in no round, and whoever is in a round is not scored on: a person loses the one or the other, each within
    the plan's epsilon.

    Raises:
        ValueError: the plan has no panel (a mistake of the caller).
        PrivacyError: as :func:`derive_noise_multiplier`.
    """
    if plan.valuation.panel is None:
        raise ValueError("a plan without a panel has no scores")
    event = GaussianEvent(noise_multiplier=derive_scores_noise(plan))
    return event_json(PartEvent(part=plan.valuation.panel.held_out, event=event))


def study_event(plan: StudyPlan) -> dict[str, Any]:
    """What the whole study costs whoever is trained on: every round of the plan.

    Raises:
        PrivacyError: as :func:`round_event`.
    """
    rounds = repeated(round_event(plan), plan.rounds.count)
    if plan.overlap is None:
        return event_json(rounds)
    whole = [event.event if isinstance(event, PartEvent) else event for event in (rounds, _sketch_event(plan.overlap))]
    return event_json(_on_its_people(plan, ComposedEvent(events=tuple(whole))))


def overlap_event(plan: StudyPlan) -> dict[str, Any]:
    """What it costs a subject, once in a study, that its institution's sketch is compared (``rules.overlap``).

    Raises:
        OperatorError: the plan compares nothing.
    """
    if plan.overlap is None:
        raise OperatorError("The plan compares no people.", remedy="Write an [overlap] section into the plan.")
    return event_json(_on_its_people(plan, _sketch_event(plan.overlap)))


def derive_noise_multiplier(plan: StudyPlan) -> Decimal:
    """The smallest noise multiplier, in millionths and never below 2, with which all rounds stay within the plan.

    Raises:
        PrivacyError: no noise is enough: at this order and delta the conversion, or the cohort counts, alone exceed
            the plan's epsilon; the remedy names an order that can serve.
    """
    return _smallest_noise(_terms(plan, plan.privacy.order))


def derive_scores_noise(plan: StudyPlan) -> Decimal:
    """The smallest noise multiplier with which one release of a panel's scores keeps the plan's epsilon, at least 2.

    Raises:
        PrivacyError: as :func:`derive_noise_multiplier`.
    """
    derive_noise_multiplier(plan)  # refuses an order and epsilon that no noise fits
    privacy = plan.privacy
    return _scores_noise(privacy.epsilon, privacy.delta, privacy.order)


def best_order(plan: StudyPlan) -> int:
    """The Renyi order, of 2 to 64, with which the plan needs the least noise: for whoever writes a plan.

    Small epsilons need high orders: at order 8 and delta 1e-5 the conversion alone costs 1.21.

    Raises:
        PrivacyError: neither such an order nor the plan's own serves.
    """
    orders = [order for order in range(2, 65) if _terms(plan, order).holds(NOISE_MULTIPLIER_MAX)]
    if not orders:
        derive_noise_multiplier(plan)
        return plan.privacy.order
    return min(orders, key=lambda order: (_smallest_noise(_terms(plan, order)), order))


def pld_epsilon(events: Iterable[EventJson | DpEvent], delta: Decimal) -> float:
    """Epsilon of ``events`` at ``delta`` by privacy loss distributions: non-adaptive, reported beside the filter's.

    It is that of the person who lost most.

    Work is bounded whatever the events are: unsampled Gaussians are first composed exactly into one, the grid is
    coarsened to 100,000 cells, and beyond eight kinds of sampled mechanism the amplification is forgone; losses beyond
    any grid are read by Renyi divergence. Each of these makes the figure larger, never smaller.
    """
    each = {frozenset(counts.items()): counts for counts in (mechanisms(*lost) for lost in people(events).values())}
    return max(_pld_epsilon(counts, delta) for counts in each.values())


def _pld_epsilon(counts: Counter[Mechanism], delta: Decimal) -> float:
    from dp_accounting.pld import privacy_loss_distribution as pld

    if not counts:
        return 0.0
    sampled = {kind: count for kind, count in counts.items() if kind[0] < 1}
    if len(sampled) > _PLD_KINDS_MAX or sum(sampled.values()) > _PLD_REPEATS_MAX:
        sampled = {}
    precision = sum(n / float(noise) ** 2 for (rate, noise), n in counts.items() if (rate, noise) not in sampled)
    interval = _pld_interval(precision, sampled)
    if interval > 1:  # a loss of tens of thousands: no protection whose fine structure were worth a grid
        return _filter_epsilon(counts, delta=delta, order=2)
    parts = []
    if precision > 0:
        parts.append(pld.from_gaussian_mechanism(precision**-0.5, value_discretization_interval=interval))
    for (rate, noise), count in sorted(sampled.items()):
        one = pld.from_gaussian_mechanism(
            float(noise), sampling_prob=float(rate), value_discretization_interval=interval
        )
        parts.append(one.self_compose(count))
    total = functools.reduce(lambda left, right: left.compose(right), parts)
    return float(total.get_epsilon_for_delta(float(delta)))


class _Terms(Wire):
    """What the noise multiplier depends on: hashable, so that the search runs once per plan."""

    epsilon: Decimal
    delta: Decimal
    order: int
    rate: Decimal
    count_noise: Decimal
    local_steps: int
    rounds: int
    sketch_noise: Decimal | None = None

    def counts(self, noise: Decimal | None) -> Counter[Mechanism]:
        """All mechanisms of the study with this noise (None: without the training steps)."""
        counts: Counter[Mechanism] = Counter({(Decimal(1), self.count_noise): self.rounds})
        if self.sketch_noise is not None:
            counts[(Decimal(1), self.sketch_noise)] += 1
        if noise is not None:
            counts[(self.rate, noise)] += self.rounds * self.local_steps
        return counts

    def holds(self, noise: Decimal | None, order: int | None = None) -> bool:
        spent = _filter_epsilon(self.counts(noise), delta=self.delta, order=order or self.order)
        return spent <= float(self.epsilon)


def _terms(plan: StudyPlan, order: int) -> _Terms:
    return _Terms(
        epsilon=plan.privacy.epsilon,
        delta=plan.privacy.delta,
        order=order,
        rate=plan.privacy.sampling_rate,
        count_noise=_quantised(plan.privacy.cohort_noise_multiplier),
        local_steps=plan.training.local_steps,
        rounds=plan.rounds.count,
        sketch_noise=None if plan.overlap is None else _quantised(plan.overlap.noise_multiplier),
    )


@functools.lru_cache(maxsize=1024)
def _smallest_noise(terms: _Terms) -> Decimal:
    """Bisection over multiples of the quantum: epsilon falls as the noise grows."""
    if not terms.holds(NOISE_MULTIPLIER_MAX):
        orders = [order for order in range(2, 257) if terms.holds(NOISE_MULTIPLIER_MAX, order)]
        remedy = (
            f"Choose privacy.order between {orders[0]} and {orders[-1]}, a larger epsilon, or fewer rounds."
            if orders
            else "Choose a larger epsilon, fewer rounds, or a larger privacy.cohort_noise_multiplier."
        )
        raise PrivacyError(
            f"No noise is strong enough for epsilon {terms.epsilon} over {terms.rounds} rounds "
            f"at delta {terms.delta} and order {terms.order}.",
            remedy=remedy,
        )
    return _smallest(terms.holds)


@functools.lru_cache(maxsize=1024)
def _scores_noise(epsilon_max: Decimal, delta: Decimal, order: int) -> Decimal:
    return _smallest(
        lambda noise: _filter_epsilon(Counter({(Decimal(1), noise): 1}), delta=delta, order=order) <= float(epsilon_max)
    )


def _smallest(holds: Callable[[Decimal], bool]) -> Decimal:
    """The smallest noise multiplier from 2 on that holds, by bisection; the largest one does."""
    low, high = int(NOISE_MULTIPLIER_MIN / QUANTUM), int(NOISE_MULTIPLIER_MAX / QUANTUM)
    if holds(low * QUANTUM):
        return low * QUANTUM
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle * QUANTUM):
            high = middle
        else:
            low = middle
    return high * QUANTUM


def _on_its_people(plan: StudyPlan, event: WholeEvent) -> DpEvent:
    if plan.valuation.panel is not None:
        return RestEvent(part=plan.valuation.panel.held_out, event=event)
    return event if plan.cohort.part is None else PartEvent(part=plan.cohort.part, event=event)


def _round_event(plan: StudyPlan, noise_multiplier: Decimal) -> ComposedEvent:
    step: WholeEvent = GaussianEvent(noise_multiplier=noise_multiplier)
    if plan.privacy.sampling_rate < 1:
        step = PoissonEvent(rate=plan.privacy.sampling_rate, event=GaussianEvent(noise_multiplier=noise_multiplier))
    if plan.training.local_steps > 1:
        step = RepeatedEvent(count=plan.training.local_steps, event=step)
    return ComposedEvent(events=(step, _count_event(plan)))


def _sketch_event(terms: Overlap) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=_quantised(terms.noise_multiplier))


def _count_event(plan: StudyPlan) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=_quantised(plan.privacy.cohort_noise_multiplier))


def _quantised(noise_multiplier: Decimal) -> Decimal:
    """Rounded up to whole millionths, for logs: the same figure in the plan, in the event and in the noise."""
    return noise_multiplier.quantize(QUANTUM, rounding=ROUND_CEILING)


def _filter_epsilon(counts: Counter[Mechanism], *, delta: Decimal, order: int) -> float:
    from dp_accounting.rdp import compute_epsilon

    if not counts:
        return 0.0
    total = math.fsum(count * _divergence(rate, noise, order) for (rate, noise), count in counts.items())
    return float(compute_epsilon([order], [total], float(delta))[0])


@functools.lru_cache(maxsize=_CACHED_MAX)
def _divergence(rate: Decimal, noise: Decimal, order: int) -> float:
    """The Renyi divergence of one mechanism: divergences add up, so each is computed once and multiplied."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    event = dp_accounting.GaussianDpEvent(float(noise))
    if rate < 1:
        event = dp_accounting.PoissonSampledDpEvent(float(rate), event)
    accountant = RdpAccountant(orders=[order])
    accountant.compose(event)
    return float(accountant._rdp[0])  # noqa: SLF001 - the divergence itself has no public name there


def _pld_interval(precision: float, sampled: dict[Mechanism, int]) -> float:
    """A grid step that keeps the support of the composed loss within the bounded number of cells.

    A Gaussian of precision p has losses within p/2 +- 14 sqrt(p) or so; sampling only makes them smaller.
    """
    total = precision + sum(count / float(noise) ** 2 for (_, noise), count in sampled.items())
    width = total + 40 * math.sqrt(total) + 1
    return max(1e-4, width / _PLD_CELLS_MAX)
