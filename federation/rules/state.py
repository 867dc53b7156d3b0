"""What a log says so far about one study: the value that :mod:`federation.rules.replay` folds entries into."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from federation.errors import PeerError
from federation.rules import admission
from federation.rules.ballots import Change
from federation.rules.clusters import Groups
from federation.rules.documents import OverlapCommitment, OverlapReport, Scores, Update
from federation.rules.entries import Measured, Payment
from federation.rules.keys import PublicKey
from federation.rules.ledger import Ledger
from federation.rules.pledges import Case
from federation.rules.study import Agreement, StudyPlan
from federation.rules.terms import Rounds

RoundPhase = Literal["idle", "open", "revealing"]


@dataclass(frozen=True, slots=True)
class RoundState:
    """The round in progress."""

    number: int
    base_model: str
    participants: tuple[str, ...]
    deadline: datetime
    opened_at: datetime
    quorum: int
    phase: RoundPhase = "open"
    commitments: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    admitted: Mapping[str, Update] = field(default_factory=dict)
    rejected: Mapping[str, str] = field(default_factory=dict)
    late: frozenset[str] = frozenset()
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class ClosedRound:
    """A round that is over. ``refused`` maps a party to the reason why nothing of it is in the model."""

    number: int
    base_model: str
    model: str
    value_table: str
    outcome: str
    participants: tuple[str, ...]
    admitted: Mapping[str, Update]
    refused: Mapping[str, str]
    entry_index: int
    reference: str | None = None
    commitments: Mapping[str, str] = field(default_factory=dict)


SlashStatus = Literal["pending", "answered", "burned"]


@dataclass(frozen=True, slots=True)
class Slash:
    """A case against a party's stake: when it was logged, and what became of it."""

    party: str
    case: Case
    at: datetime
    status: SlashStatus = "pending"


@dataclass(frozen=True, slots=True)
class Ballot:
    """A proposed change: the weights as they were when it was proposed, and the votes so far.

    ``votes`` maps a party to whether it said yes; votes are taken until ``closes``, or until the change is accepted.
    """

    proposer: str
    change: Change
    weights: Mapping[str, int]
    closes: datetime
    votes: Mapping[str, bool] = field(default_factory=dict)
    accepted: bool = False

    @property
    def total(self) -> int:
        """All weights of the snapshot."""
        return sum(self.weights.values())

    @property
    def yes(self) -> int:
        """The weights that said yes."""
        return sum(self.weights[did] for did, yes in self.votes.items() if yes)


@dataclass(frozen=True, slots=True)
class OverlapState:
    """How far the comparison of people has come, in a plan that asks for one.

    ``since``: when the last agreement came; ``copies`` and ``clusters``: who counts as one (``rules.clusters``).
    """

    since: datetime | None = None
    closed: bool = False
    commitments: Mapping[str, OverlapCommitment] = field(default_factory=dict)
    declined: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, OverlapReport] = field(default_factory=dict)
    formed: bool = False
    copies: Groups = ()
    clusters: Groups = ()

    @property
    def begun(self) -> bool:
        """Whether who takes part is fixed."""
        return self.closed or bool(self.commitments) or bool(self.declined)


@dataclass(frozen=True, slots=True)
class PanelState:
    """The panel, once its study's rounds are over: who may score, who committed (did -> commitment), what was shown.

    ``deadline`` is that of the phase: of commitments, then of showing.
    """

    members: tuple[str, ...]
    deadline: datetime
    closed: bool = False
    commitments: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, Scores] = field(default_factory=dict)

    @property
    def awaited(self) -> tuple[str, ...]:
        """Who may still commit, or has still to show; sorted."""
        due, done = (self.commitments, self.shown) if self.closed else (self.members, self.commitments)
        return tuple(sorted(set(due) - set(done)))


@dataclass(frozen=True, slots=True)
class StudyState:
    """All that the log says so far about one study. Parties are did strings.

    ``coordinator`` signed the plan, and leads until a standby takes over; ``began`` is the index of the entry with
    which it did (``succession``).
    ``answer_s`` says how many seconds each party took to commit in the last round in which it did, ``measured`` what
    was measured of its line last (``cohorts``).

    ``stakes`` holds what parties deposited (micro-credits; the ledger knows what is left), ``slashes`` and ``ballots``
    go by the id of their entry, ``holds`` maps a slashed party to the pending transfer of its stake, ``voted`` is what
    accepted changes made of the plan's rounds.
    """

    plan: StudyPlan
    plan_blob: str
    coordinator: PublicKey
    size: int = 0
    published: bool = False
    last_time: datetime | None = None
    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    overlap: OverlapState = field(default_factory=OverlapState)
    weights: Mapping[str, int] = field(default_factory=dict)
    model: str | None = None
    first_model: str | None = None
    round: RoundState | None = None
    panel: PanelState | None = None
    closed: tuple[ClosedRound, ...] = ()
    answer_s: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)
    consent_logs: Mapping[str, admission.ConsentLogView] = field(default_factory=dict)
    payments: tuple[Payment, ...] = ()
    tables: tuple[str, ...] = ()
    burned: int = 0
    aborted: str = ""
    settled: bool = False
    settled_at: datetime | None = None
    stakes: Mapping[str, int] = field(default_factory=dict)
    released: frozenset[str] = frozenset()
    slashes: Mapping[str, Slash] = field(default_factory=dict)
    holds: Mapping[str, str] = field(default_factory=dict)
    ballots: Mapping[str, Ballot] = field(default_factory=dict)
    voted: Rounds | None = None
    ledger: Ledger = field(default_factory=Ledger)
    entry_ids: frozenset[str] = frozenset()
    began: int | None = None

    @property
    def study(self) -> str:
        """The study's id."""
        return self.plan.study_id

    @property
    def term(self) -> int:
        """How often the lead has passed on: 0, or 1 once the standby has it."""
        return 0 if self.began is None else 1

    @property
    def leader(self) -> PublicKey:
        """The key that signs entries and checkpoints now."""
        return self.leader_at(self.size)

    def leader_at(self, size: int) -> PublicKey:
        """The key that signs the checkpoint over the first ``size`` entries, and the last of these entries."""
        if self.began is None or size <= self.began or self.plan.failover is None:
            return self.coordinator
        return self.plan.failover.key

    @property
    def witnesses(self) -> tuple[PublicKey, ...]:
        """Who cosigns: the institutions whose agreement was admitted, in the order of their did."""
        return tuple(PublicKey.from_did(did) for did in sorted(self.agreements))

    def site(self, did: str) -> str:
        """The short name of a party."""
        return self.agreements[did].site

    @property
    def rounds(self) -> Rounds:
        """The plan's rounds with the changes that were accepted; a round in progress keeps the quorum it began with."""
        return self.voted or self.plan.rounds

    @property
    def active(self) -> tuple[str, ...]:
        """Parties that may take part in the next round, sorted."""
        return tuple(sorted(did for did in self.weights if did not in self.revoked))

    @property
    def complete(self) -> bool:
        """Every round is closed (or the study was aborted, or too few are left to take part)."""
        rounds = self.rounds
        over = self.aborted or len(self.closed) >= rounds.count or len(self.active) < rounds.quorum
        return self.round is None and bool(self.weights) and bool(over)


def require(condition: bool, why: str) -> None:
    """Refuse an entry that breaks a rule.

    Raises:
        PeerError: ``condition`` does not hold; ``why`` says which rule, without a full stop.
    """
    if not condition:
        raise PeerError(f"{why}.", remedy="Keep the log as evidence and ask the coordinator to explain it.")
