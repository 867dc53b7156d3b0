"""What a study plan is made of: one section a class, each with its bounds.

:class:`federation.rules.study.StudyPlan` puts them together and holds what one section asks of another.
"""

from datetime import date
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from federation.rules.parts import Part
from federation.rules.wire import Did, Number, PositiveNumber, Sha256Hex, Text, Wire

MINTED_MAX: Final = 10**15
"""The most that one study can pay, in micro-credits."""
STAKE_MAX: Final = 10**14
"""The largest stake of one party, in micro-credits."""
WINDOW_S_MAX: Final = 366 * 86_400
PARTICIPANTS_MAX: Final = 128
TABLE_PLAYERS_MAX: Final = 14
"""With more updates than that, a round's value table holds a sample of the coalitions (``value_sample``)."""
COALITIONS_MAX: Final = 50_000
"""The most utilities of one table: it stays below 1 MiB, as a blob in one piece must."""
PAIRS_FIRST: Final = 32
"""Pairs of orders before the first look at a sample: fewer say too little about the spread."""
DRAWS_FIRST: Final = 16
"""Draws of each stratum before the first look; a stratum with no more coalitions than that is counted whole."""


def _day(value: str) -> str:
    date.fromisoformat(value)
    return value


_Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Names = Annotated[tuple[_Name, ...], Field(min_length=1, max_length=64)]
_Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
_Day = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_day)]


class Purpose(Wire):
    """What the data is used for, in GA4GH DUO terms, and what the study declares about itself.

    A declaration that is left out counts as not made: a consent that restricts it is then never a yes.

    Attributes:
        duo: the DUO permission that the study needs.
        disease: for disease-specific research, the disease (MONDO).
        statement: the purpose in words.
        commercial: whether the use, or what comes of it, is commercial.
        organisation: ``not-for-profit`` if every organisation that uses the data is; else ``for-profit``.
        countries: where the data and the results are used (ISO 3166-1 alpha-2).
        methods_development: whether general methods, software or algorithms are developed.
        ancestry: whether it studies population origins or ancestry.
        genetic: whether it studies genotypes.
        clinical_care: whether it is also for clinical use and care.
        research_types: its types of research, in the words or codes of those who give consent.
        institutions: every institution that uses the data.
        users: every person who uses the data.
        project: the approved project that it belongs to.
        publication_from: before which day it publishes nothing.
        approvals: its ethics approvals (body and number).
    """

    duo: Annotated[str, StringConstraints(pattern=r"^DUO:\d{7}$")]
    disease: Annotated[str, StringConstraints(pattern=r"^MONDO:\d{7}$")] | None = None
    statement: Text
    commercial: bool | None = None
    organisation: Literal["not-for-profit", "for-profit"] | None = None
    countries: Annotated[tuple[_Country, ...], Field(min_length=1, max_length=250)] | None = None
    methods_development: bool | None = None
    ancestry: bool | None = None
    genetic: bool | None = None
    clinical_care: bool | None = None
    research_types: _Names | None = None
    institutions: _Names | None = None
    users: _Names | None = None
    project: _Name | None = None
    publication_from: _Day | None = None
    approvals: _Names | None = None


class Privacy(Wire):
    """What a subject loses at most in this study, and how.

    ``epsilon`` and ``delta`` bound the whole study: all rounds, the noisy cohort counts, and the sketch of a plan with
    ``overlap``. The node derives
    the noise multiplier from them (``federation.rules.accounting``). ``clip`` bounds one subject's gradient (L2).
    ``sampling_rate`` is the public Poisson rate q. ``order`` is the Renyi order of the filter.
    """

    unit: Literal["subject"]
    epsilon: Annotated[Number, Field(gt=0, le=8)]
    delta: Annotated[Number, Field(gt=0, le=Decimal("1e-5"))]
    clip: PositiveNumber
    sampling_rate: Annotated[Number, Field(gt=0, le=1)] = Decimal(1)
    order: Annotated[int, Field(ge=2, le=256)] = 8
    cohort_noise_multiplier: Annotated[Number, Field(ge=2)] = Decimal(20)


class Training(Wire):
    """The steps that a node takes in a round, on sums over the nominal cohort."""

    learning_rate: PositiveNumber
    l2: Annotated[Number, Field(ge=0)] = Decimal(0)
    local_steps: Annotated[int, Field(ge=1, le=1000)] = 1


class Rounds(Wire):
    """How many rounds, how many nodes make one valid, how long the coordinator waits.

    A quorum must be there at once for a round to begin. With ``attendance`` = ``visits`` nodes are online now and then:
    a round begins once a quorum was seen within the last ``deadline_s``, and gives everybody a deadline to commit and
    another one to show the update.

    With ``invite`` a round invites at most so many institutions, and each at least once in every ``invite_every``
    rounds (``federation.rules.cohorts``). With ``enough`` commitments close once so many are there.
    """

    count: Annotated[int, Field(ge=1, le=1000)]
    participants: Annotated[int, Field(ge=1, le=PARTICIPANTS_MAX)]
    quorum: Annotated[int, Field(ge=1, le=PARTICIPANTS_MAX)]
    deadline_s: Annotated[int, Field(ge=1, le=604800)]
    attendance: Literal["visits"] | None = None
    invite: Annotated[int, Field(ge=1, le=PARTICIPANTS_MAX)] | None = None
    invite_every: Annotated[int, Field(ge=1, le=1000)] | None = None
    enough: Annotated[int, Field(ge=1, le=PARTICIPANTS_MAX)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Rounds":
        if self.quorum > self.participants:
            raise ValueError("rounds.quorum cannot be above rounds.participants")
        if not self.quorum <= (self.enough or self.quorum) <= (self.invite or self.participants) <= self.participants:
            raise ValueError("rounds must have quorum <= enough <= invite <= participants")
        if (self.invite is None) != (self.invite_every is None):
            raise ValueError("rounds.invite and rounds.invite_every belong together")
        if self.invite and self.invite * (self.invite_every or 1) < self.participants:
            raise ValueError("rounds.invite x rounds.invite_every must reach rounds.participants, or some are left out")
        return self


class Cohort(Wire):
    """The smallest cohort that a node may train on, judged on a noisy count; and which part of its people, if not all.

    Attributes:
        minimum: people.
        part: by the public rule of ``federation.rules.parts``, such as ``01`` for one quarter; studies on parts without
            common people spend separate budgets.
    """

    minimum: Annotated[int, Field(ge=1)]
    part: Part | None = None


class Aggregation(Wire):
    """How updates become the next model.

    ``weight_cap`` bounds one institution's share of the weights; ``norm_bound`` the L2 norm of an update. ``tolerated``
    is the share of the sites present that a robust rule takes for hostile (rounded down to whole sites).
    ``encoding`` says how vectors are written (``federation.rules.vectors``): 8 bytes for each integer, or as few as the
    vector needs. ``compression`` makes updates (not models) shorter at the price of detail
    (``federation.rules.compression``); ``keep`` is the share of its numbers that ``top-k`` sends.
    ``trust-anchored`` measures updates by one that the sponsor computes on a root set of its own: ``root`` commits to
    its rows as ``validation.commitment`` does to the validation set, ``root_disclosure`` says who sees them after the
    last round.
    """

    rule: Literal[
        "weighted-mean",
        "trimmed-mean",
        "multi-krum",
        "geometric-median",
        "nnm-trimmed-mean",
        "aligned-trimmed-mean",
        "trust-anchored",
    ]
    weight_cap: Annotated[Number, Field(gt=0, le=1)] = Decimal(1)
    norm_bound: PositiveNumber
    tolerated: Annotated[Number, Field(gt=0, lt=Decimal("0.5"))] | None = None
    encoding: Literal["fewest-bytes"] | None = None
    compression: Literal["int8", "top-k"] | None = None
    keep: Annotated[Number, Field(gt=0, le=Decimal("0.5"))] | None = None
    root: Sha256Hex | None = None
    root_disclosure: Literal["public", "sealed"] | None = None

    @property
    def anchored(self) -> bool:
        """Whether every round needs a reference update of the sponsor's."""
        return self.rule == "trust-anchored"

    @model_validator(mode="after")
    def _asked(self) -> "Aggregation":
        robust = self.rule not in ("weighted-mean", "geometric-median", "trust-anchored")
        for name, value, asks in (
            ("tolerated", self.tolerated, robust),
            ("root", self.root, self.anchored),
            ("root_disclosure", self.root_disclosure, self.anchored),
        ):
            if asks != (value is not None):
                raise ValueError(f"aggregation.{name} {'is needed' if asks else 'has no meaning'} with {self.rule}")
        if (self.compression == "top-k") != (self.keep is not None):
            raise ValueError("aggregation.keep belongs to compression = top-k, and to nothing else")
        return self


class Sampling(Wire):
    """How far to sample the values of a round that has more updates than a table of all coalitions can hold.

    Attributes:
        precision: half the width, in nats, of each institution's interval in a round; sampling stops when all have it.
        confidence: of each interval.
        coalitions_max: how many utilities a table may hold: sampling stops there in any case.
    """

    precision: PositiveNumber
    confidence: Annotated[Number, Field(ge=Decimal("0.5"), le=Decimal("0.999"))] = Decimal("0.95")
    coalitions_max: Annotated[int, Field(ge=1, le=COALITIONS_MAX)] = 20_000

    @property
    def half_width(self) -> int:
        """The precision in units of utility (2^-40 nats), rounded down, at least 1."""
        return max(1, int(self.precision * 2**40))


class Panel(Wire):
    """Institutions score each other, on people whom each holds back: see ``federation.rules.panel``.

    Attributes:
        held_out: the part of each institution's people (``federation.rules.parts``) that is scored on, and never
            trained on.
        clip: how far one person can move an institution's scores, L2, in nats over the whole study.
        band: how far from the median, in nats, another institution's number still counts in full; 0: medians.
        quorum: with fewer institutions that show their scores the pool is burned.
    """

    held_out: Part
    clip: Annotated[Number, Field(gt=0, le=1024)]
    band: Annotated[Number, Field(ge=0, le=1024)] = Decimal(0)
    quorum: Annotated[int, Field(ge=3, le=14)]


class Valuation(Wire):
    """How an institution's value is measured: by ``method`` from the bounded negative log loss (nats, 0 .. bound).

    On the sponsor's validation set, or where there is a ``panel`` by that. ``sampling``: for plans of more institutions
    than a table of all coalitions can hold.
    """

    method: Literal["shapley", "banzhaf", "leave-one-out", "beta-16-1", "beta-4-1", "beta-1-4", "beta-1-16"]
    utility: Literal["negative-log-loss"]
    loss_bound: PositiveNumber = Decimal(4)
    sampling: Sampling | None = None
    panel: Panel | None = None


def coalitions_whole(method: str, players: int) -> int:
    """How many coalitions a sample of ``players`` holds in any case, at most."""
    if method == "shapley":
        return 2
    if method == "leave-one-out":
        return players + 2
    # Strata that are counted whole: the smallest and the largest sizes.
    return 2 * (players + 1) + (players * (players - 1) if players - 1 <= DRAWS_FIRST else 0)


def coalitions_needed(method: str, players: int) -> int:
    """How many coalitions must fit into a table until values of ``players`` by ``method`` are known at all."""
    whole = coalitions_whole(method, players)
    if method == "leave-one-out":
        return whole
    return whole + (PAIRS_FIRST * 2 * (players - 1) if method == "shapley" else DRAWS_FIRST * 2 * players**2)


class Reward(Wire):
    """What institutions are paid: parts of a pool by what they measurably brought, and fees for taking part.

    Attributes:
        pool_microcredits: what is shared out.
        minimum_share: a share below it of the pool is burned.
        pay: by each institution's ``value`` (so also where nothing is said), or by its ``lower-bound``: the value less
            ``z`` standard errors (``federation.learning.uncertainty``).
        fees: did -> micro-credits for taking part in every round that counts (``payouts.fees_due``); with it, nobody
            else can take part.
        outcome: the market that the fees come from, the SHA-256 of its signed outcome (``offers.MarketOutcome``).
    """

    pool_microcredits: Annotated[int, Field(ge=0, le=MINTED_MAX)]
    minimum_share: Annotated[Number, Field(ge=0, le=1)] = Decimal(0)
    pay: Literal["value", "lower-bound"] | None = None
    z: Annotated[Number, Field(gt=0, le=10)] | None = None
    fees: Annotated[dict[Did, Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=PARTICIPANTS_MAX)] | None = (
        None
    )
    outcome: Sha256Hex | None = None

    @property
    def minted(self) -> int:
        """Micro-credits that wait in the study's escrow: the pool and all fees."""
        return self.pool_microcredits + sum((self.fees or {}).values())

    @model_validator(mode="after")
    def _asked(self) -> "Reward":
        asks = self.pay == "lower-bound"
        if asks != (self.z is not None):
            raise ValueError(f"reward.z {'is needed' if asks else 'has no meaning'} with pay = {self.pay or 'value'}")
        return self

    @model_validator(mode="after")
    def _payable(self) -> "Reward":
        if self.minted > MINTED_MAX:
            raise ValueError(f"the pool and all fees together are above {MINTED_MAX} micro-credits")
        if self.outcome is not None and self.fees is None:
            raise ValueError("reward.outcome has no meaning without reward.fees")
        return self


class Stake(Wire):
    """What each party must hold before the study starts, and how long evidence against it is heard.

    All windows are in seconds. ``challenge_s`` runs from the settlement: until then a stake can be slashed.
    ``appeal_s`` runs from a slash: until then it can be answered, and nothing is burned. ``unbonding_s`` runs from the
    settlement: nothing is released before; it is as long as both together, so that a slash in the last moment of the
    challenge window still finds its stake.

    Attributes:
        coordinator_microcredits: of whoever keeps the log and scores.
        institution_microcredits: of each institution.
    """

    coordinator_microcredits: Annotated[int, Field(ge=0, le=STAKE_MAX)]
    institution_microcredits: Annotated[int, Field(ge=0, le=STAKE_MAX)]
    challenge_s: Annotated[int, Field(ge=1, le=WINDOW_S_MAX)]
    appeal_s: Annotated[int, Field(ge=1, le=WINDOW_S_MAX)]
    unbonding_s: Annotated[int, Field(ge=1, le=2 * WINDOW_S_MAX)]

    @model_validator(mode="after")
    def _outlasts(self) -> "Stake":
        if self.coordinator_microcredits + self.institution_microcredits == 0:
            raise ValueError("a stake of nothing for everybody: leave the section out")
        if self.unbonding_s < self.challenge_s + self.appeal_s:
            raise ValueError("stake.unbonding_s cannot be below challenge_s + appeal_s")
        return self


class Voting(Wire):
    """Whether parties may change what cannot weaken anybody's privacy (``federation.rules.ballots.Change``), and how.

    Attributes:
        weights: what a vote counts, as it was when the change was proposed: the study's ``cohort`` weights of the
            institutions, or what each party, the coordinator too, holds as a ``stake``.
        threshold: a change is accepted once more than this share of all weights of the snapshot said yes.
        open_s: how long votes are taken, in seconds.
    """

    weights: Literal["cohort", "stake"] = "cohort"
    threshold: Annotated[Number, Field(ge=Decimal("0.5"), lt=1)] = Decimal("0.5")
    open_s: Annotated[int, Field(ge=1, le=WINDOW_S_MAX)]


class Validation(Wire):
    """The sponsor's validation set: drawn by ``rule``, committed by hash before the study opens.

    ``commitment`` = tagged_hash("validation", salt, file bytes) in hex. ``disclosure``: who sees the rows after the
    last round (``public`` exports them with the study; ``sealed`` keeps them with the sponsor).
    """

    rule: Text
    commitment: Sha256Hex
    disclosure: Literal["public", "sealed"] = "sealed"


class Overlap(Wire):
    """Whether institutions hold the same people is compared before the first round, and copies are valued as one.

    Each institution makes one noised sketch of its people (``federation.rules.overlap``); only the other institutions
    see it. It is part of what ``privacy.epsilon`` bounds.

    Attributes:
        buckets: places of a sketch. The error is smallest near cohort / noise_multiplier^2.
        noise_multiplier: of the sketch, whose sensitivity is 1.
        threshold: which part of the smaller of two cohorts must be common for one to be a copy of the other.
        z: by how many standard deviations the common people must be beyond chance, besides.
    """

    buckets: Literal[16, 32, 64, 128, 256, 512, 1024] = 64
    noise_multiplier: Annotated[Number, Field(ge=1, le=1000)] = Decimal(2)
    threshold: Annotated[Number, Field(gt=0, le=1)] = Decimal("0.5")
    z: Annotated[Number, Field(ge=1, le=10)] = Decimal(3)


class ConsentTerms(Wire):
    """Which mechanism binds.

    Each subject's own ``consent`` or ``hipaa-authorization``; or, for a whole source, one ``licence`` or ``dpa`` of its
    owner, or one ``ehds-permit``.
    """

    kind: Literal["consent", "licence", "dpa", "hipaa-authorization", "ehds-permit"] = "consent"
