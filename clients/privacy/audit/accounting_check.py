"""Does the ledger report at least what really ran, over rounds, studies and restarts?

The rounds of two studies are charged as a node charges them: each message opens the ledger anew, as after a restart.
What it reports is then held against dp_accounting, fed by this module with what ran and by nothing of ours.
"""

from decimal import Decimal
from typing import Final

import dp_accounting
from dp_accounting.rdp import RdpAccountant

from clients.privacy.audit.findings import Check, exact
from clients.privacy.audit.path import LIFETIME_DELTA, RENYI_ORDER, AuditedPath
from clients.storage import memory_node
from federation.rules.events import DpEvent, GaussianEvent, PoissonEvent, RepeatedEvent

_TOLERANCE: Final = 1e-6
_NOISE: Final = Decimal("6.5")
_RATE: Final = Decimal("0.1")
_STEPS: Final = 20
_ROUNDS: Final = 6


def accounting_check(path: AuditedPath) -> Check:
    """Two studies of six rounds, one with full batches and one sampled, charged in turn."""
    engine = memory_node()
    full: DpEvent = GaussianEvent(noise_multiplier=_NOISE)
    sampled = RepeatedEvent(count=_STEPS, event=PoissonEvent(rate=_RATE, event=GaussianEvent(noise_multiplier=_NOISE)))
    ran = RdpAccountant(orders=[RENYI_ORDER])
    for number in range(1, _ROUNDS + 1):
        for study, event in (("audit-full", full), ("audit-sampled", sampled)):
            path.ledger(engine).reserve(study, number, event)
            path.ledger(engine).start(study, number)
            path.ledger(engine).commit(study, number)
    gaussian = dp_accounting.GaussianDpEvent(float(_NOISE))
    ran.compose(gaussian, _ROUNDS)
    ran.compose(dp_accounting.PoissonSampledDpEvent(float(_RATE), gaussian), _ROUNDS * _STEPS)
    reported, expected = path.ledger(engine).spent(), float(ran.get_epsilon(float(LIFETIME_DELTA)))
    return exact(
        "accounting",
        "Does the ledger report all that ran, over restarts and studies?",
        holds=abs(reported - expected) <= _TOLERANCE,
        measured=f"it reports epsilon {reported:.4f} where {expected:.4f} ran",
    )
