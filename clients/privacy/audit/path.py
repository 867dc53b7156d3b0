"""What is audited: the components between a person's rows and what leaves the site, each behind a port.

By default these are the very functions that a node runs; an audit of a copy would prove nothing about the node. A test
substitutes one faulty component to see whether the audit catches it; no setting and no command leads to another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Protocol

from sqlalchemy.engine import Engine

from clients.privacy.budget import BudgetLedger
from clients.privacy.dp_training import train
from clients.privacy.noise import NoiseSource, SecureNoise
from clients.privacy.release import release
from federation.rules.encoding import Rows, SubjectBatch, by_subject
from federation.rules.fixedpoint import Floats, Integers
from federation.rules.schema import SchemaContract
from federation.rules.study import StudyPlan

LIFETIME_EPSILON: Final = Decimal(8)
LIFETIME_DELTA: Final = Decimal("1e-5")
RENYI_ORDER: Final = 8


class Train(Protocol):
    """As :func:`clients.privacy.dp_training.train`."""

    def __call__(
        self,
        plan: StudyPlan,
        base: Floats,
        batch: SubjectBatch,
        nominal_cohort: int,
        noise_multiplier: Decimal,
        noise: NoiseSource,
    ) -> Floats:
        """The change of the parameters: float64 [P]."""
        ...


def open_ledger(engine: Engine) -> BudgetLedger:
    """The node's ledger in ``engine``, as each message to the node opens it; made on first use."""
    return BudgetLedger.create(
        engine,
        epsilon=LIFETIME_EPSILON,
        delta=LIFETIME_DELTA,
        order=RENYI_ORDER,
        clock=lambda: datetime.now(UTC),
    )


@dataclass(frozen=True, slots=True)
class AuditedPath:
    """The components, in the order in which data passes them.

    Attributes:
        group: rows to persons, the unit of privacy.
        train: the local steps of a round.
        release: the one door out.
        noise: where a round gets its noise source from.
        ledger: where a round gets its privacy budget from.
    """

    group: Callable[[SchemaContract, Rows], SubjectBatch] = by_subject
    train: Train = train
    release: Callable[[Floats, StudyPlan], Integers] = release
    noise: Callable[[], NoiseSource] = SecureNoise
    ledger: Callable[[Engine], BudgetLedger] = open_ledger
