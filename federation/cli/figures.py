"""A running party's figures as its operators watch them: names, meanings, and how they follow from a study's log.

Nothing here says anything about a person or about data: rounds, reasons, bytes, and what the budget was charged.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from federation.network.traffic import TRAFFIC
from federation.rules.state import StudyState

COUNTERS: Final[Mapping[str, str]] = {
    "accord_sent_bytes": "Bytes of messages sent to peers.",
    "accord_received_bytes": "Bytes of messages received from peers.",
    "accord_rounds": "Rounds that are over, by outcome: for a node its own (admitted, refused, absent).",
    "accord_refusals": "Refusals in rounds that are over, by reason.",
}
GAUGES: Final[Mapping[str, str]] = {
    "accord_status_age_seconds": "How long ago the party's loop last went round.",
    "accord_connected": "Peers connected now; for a node 1 while its coordinator is.",
    "accord_round": "The round in progress, else the last one.",
    "accord_awaited": "Answers that the study waits for.",
    "accord_settled": "1 once the study is settled.",
    "accord_epsilon_spent": "Epsilon that the institution's ledger has charged its people, of everything.",
    "accord_epsilon_lifetime": "Epsilon that the ledger will never pass.",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure; ``name`` is one of the tables above."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def families(samples: Iterable[Sample]) -> Iterator[Metric]:
    """The samples, grouped as the Prometheus text format wants them."""
    grouped: dict[str, list[Sample]] = {}
    for sample in samples:
        grouped.setdefault(sample.name, []).append(sample)
    for name, members in grouped.items():
        labels = list(members[0].labels)
        if name in COUNTERS:
            family: Metric = CounterMetricFamily(name, COUNTERS[name], labels=labels)
        else:
            family = GaugeMetricFamily(name, GAUGES[name], labels=labels)
        for member in members:
            family.add_metric([member.labels[label] for label in labels], member.value)  # type: ignore[attr-defined] # of both kinds
        yield family


def study_figures(state: StudyState, *, party: str | None = None) -> Iterator[Sample]:
    """What a study's log says: of all parties, or of one.

    Args:
        state: the fold over the log.
        party: a node's did; None for the coordinator.
    """
    outcomes: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for done in state.closed:
        reasons = done.refused if party is None else {did: why for did, why in done.refused.items() if did == party}
        refusals.update(reason.partition(":")[0] for reason in reasons.values())
        if party is None:
            outcomes[done.outcome] += 1
        elif party in done.participants:
            outcomes["admitted" if party in done.admitted else "refused"] += 1
        else:
            outcomes["absent"] += 1
    yield from (Sample("accord_rounds", count, {"outcome": name}) for name, count in sorted(outcomes.items()))
    yield from (Sample("accord_refusals", count, {"reason": name}) for name, count in sorted(refusals.items()))
    yield Sample("accord_round", state.round.number if state.round else len(state.closed))
    yield Sample("accord_settled", state.settled)


def traffic_figures() -> Iterator[Sample]:
    """Bytes in and out of this process."""
    yield Sample("accord_sent_bytes", TRAFFIC.sent)
    yield Sample("accord_received_bytes", TRAFFIC.received)
