"""Epsilon of logged events by dp_accounting's own types and accountant, with nothing of ours in between."""

from collections.abc import Iterable
from typing import Any

import dp_accounting
from dp_accounting.rdp import RdpAccountant


def independent_epsilon(events: Iterable[Any]) -> float:
    """At order 8 and delta 1e-5, of events as they stand in a log or a ledger (JSON)."""
    accountant = RdpAccountant(orders=[8])

    def compose(event: dict[str, Any], times: int = 1) -> None:
        if event["type"] == "gaussian":
            accountant.compose(dp_accounting.GaussianDpEvent(float(event["noise_multiplier"])), times)
        elif event["type"] == "poisson":
            inner = dp_accounting.GaussianDpEvent(float(event["event"]["noise_multiplier"]))
            accountant.compose(dp_accounting.PoissonSampledDpEvent(float(event["rate"]), inner), times)
        elif event["type"] == "repeated":
            compose(event["event"], times * event["count"])
        else:
            for part in event["events"]:
                compose(part, times)

    for event in events:
        compose(event)
    return float(accountant.get_epsilon(1e-5))
