"""The study plan, and the agreement that an institution signs.

A plan says everything that binds the parties: purpose, columns with public bounds (``schema``), model, privacy, rounds,
value and reward. Its canonical bytes are hashed; the hash is the study's identity. Decimals are exact (``Decimal``) and
travel as strings. An institution that signs an :class:`Agreement` agrees to one plan's hash and to nothing else.
"""

from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from federation.errors import OperatorError, PeerError
from federation.rules.canonical import canonical_bytes, parse_canonical, sha256_hex
from federation.rules.envelope import Envelope, open_envelope, sign
from federation.rules.families import PARAMETERS_MAX, CnnModel, ModelSpec, TransformerModel, size
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.parts import Part
from federation.rules.schema import SchemaContract
from federation.rules.wire import Did, Number, PositiveNumber, Sha256Hex, Slug, Text, Wire, describe, parse_toml

PLAN_TYPE: Final = "application/vnd.accord.study-plan.v1+json"
AGREEMENT_TYPE: Final = "application/vnd.accord.agreement.v1+json"
PLAN_BYTES_MAX: Final = 256 * 1024
MINTED_MAX: Final = 10**15
"""The most that one study can pay, in micro-credits."""


def _day(value: str) -> str:
    date.fromisoformat(value)
    return value


W = TypeVar("W", bound=Wire)


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

    ``epsilon`` and ``delta`` bound the whole study, all rounds and the noisy cohort counts included. The node derives
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
    """

    count: Annotated[int, Field(ge=1, le=1000)]
    participants: Annotated[int, Field(ge=1, le=14)]
    quorum: Annotated[int, Field(ge=1, le=14)]
    deadline_s: Annotated[int, Field(ge=1, le=604800)]
    attendance: Literal["visits"] | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Rounds":
        if self.quorum > self.participants:
            raise ValueError("rounds.quorum cannot be above rounds.participants")
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
    """

    rule: Literal["weighted-mean", "trimmed-mean", "multi-krum", "geometric-median", "nnm-trimmed-mean"]
    weight_cap: Annotated[Number, Field(gt=0, le=1)] = Decimal(1)
    norm_bound: PositiveNumber
    tolerated: Annotated[Number, Field(gt=0, lt=Decimal("0.5"))] | None = None

    @model_validator(mode="after")
    def _asked(self) -> "Aggregation":
        asks = self.rule not in ("weighted-mean", "geometric-median")
        if asks != (self.tolerated is not None):
            raise ValueError(f"aggregation.tolerated {'is needed' if asks else 'has no meaning'} with {self.rule}")
        return self


class Valuation(Wire):
    """How an institution's value is measured: by ``method`` from the bounded negative log loss (nats, 0 .. bound)."""

    method: Literal["shapley", "banzhaf", "leave-one-out", "beta-16-1", "beta-4-1", "beta-1-4", "beta-1-16"]
    utility: Literal["negative-log-loss"]
    loss_bound: PositiveNumber = Decimal(4)


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
    fees: Annotated[dict[Did, Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=14)] | None = None
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


class Validation(Wire):
    """The sponsor's validation set: drawn by ``rule``, committed by hash before the study opens.

    ``commitment`` = tagged_hash("validation", salt, file bytes) in hex. ``disclosure``: who sees the rows after the
    last round (``public`` exports them with the study; ``sealed`` keeps them with the sponsor).
    """

    rule: Text
    commitment: Sha256Hex
    disclosure: Literal["public", "sealed"] = "sealed"


class ConsentTerms(Wire):
    """Which mechanism binds.

    Each subject's own ``consent`` or ``hipaa-authorization``; or, for a whole source, one ``licence`` or ``dpa`` of its
    owner, or one ``ehds-permit``.
    """

    kind: Literal["consent", "licence", "dpa", "hipaa-authorization", "ehds-permit"] = "consent"


class StudyPlan(Wire):
    """A study, complete: what every party is bound to."""

    version: Literal[1] = 1
    name: Slug
    title: Text
    sponsor: Slug
    origin: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9./_-]{0,120}$")]
    purpose: Purpose
    consent: ConsentTerms = ConsentTerms()
    schema_contract: Annotated[SchemaContract, Field(alias="schema")]
    model: ModelSpec
    privacy: Privacy
    training: Training
    rounds: Rounds
    cohort: Cohort
    aggregation: Aggregation
    valuation: Valuation
    reward: Reward
    validation: Validation
    code_approved: Annotated[tuple[Sha256Hex, ...], Field(min_length=1, max_length=16)]

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    @model_validator(mode="after")
    def _bounded(self) -> "StudyPlan":
        inputs = self.schema_contract.inputs
        if isinstance(self.model, CnnModel | TransformerModel) and self.model.inputs != inputs:
            takes = f"a {self.model.family} of this shape takes {self.model.inputs} numbers"
            raise ValueError(f"model: {takes}, and a row holds {inputs}")
        if size(self.model, inputs) > PARAMETERS_MAX:
            raise ValueError(f"model: more than {PARAMETERS_MAX} parameters")
        return self

    @model_validator(mode="after")
    def _paid(self) -> "StudyPlan":
        fees, participants = self.reward.fees, self.rounds.participants
        if fees is not None and len(fees) != participants:
            raise ValueError(f"reward.fees names {len(fees)} institutions, rounds.participants is {participants}")
        return self

    @model_validator(mode="after")
    def _lattice(self) -> "StudyPlan":
        steps = self.privacy.clip * self.training.local_steps * self.training.learning_rate
        bound_max = Decimal(2**20)
        if steps > bound_max or self.aggregation.norm_bound > bound_max:
            raise ValueError("learning_rate x clip x local_steps and norm_bound must stay below 2^20")
        return self

    def to_payload(self) -> bytes:
        """The plan's canonical JSON bytes."""
        return canonical_bytes(self.model_dump(mode="json", exclude_none=True, by_alias=True))

    @cached_property
    def plan_hash(self) -> str:
        """SHA-256 of the canonical bytes, hexadecimal: what agreements name.

        Computed once, as a plan is frozen and every entry of a log asks for it; another plan is validated anew.
        """
        return sha256_hex(self.to_payload())

    @model_validator(mode="after")
    def _tolerates(self) -> "StudyPlan":
        if self.aggregation.tolerated is not None and self.aggregation.tolerated * self.rounds.participants < 1:
            raise ValueError("aggregation.tolerated x rounds.participants is below one site: nobody would be tolerated")
        return self

    @property
    def study_id(self) -> str:
        """A name that people can read and that still names one plan: ``NAME-`` and 12 digits of the plan's hash."""
        return f"{self.name}-{self.plan_hash[:12]}"

    def sign(self, key: PrivateKey) -> Envelope:
        """The plan, signed by the coordinator."""
        return sign(self.to_payload(), PLAN_TYPE, key)


class Agreement(Wire):
    """An institution's word that it takes part in one plan.

    ``site`` is the short name that reports use; ``nominal_cohort`` the public, rounded size that weights and sums use
    (never the exact count); ``reward_account`` the account ``institution:SITE`` that is paid.
    """

    version: Literal[1] = 1
    study: str
    plan_hash: Sha256Hex
    site: Slug
    nominal_cohort: Annotated[int, Field(ge=1, le=10**9)]
    signed_at: str

    def sign(self, key: PrivateKey) -> Envelope:
        """The agreement, signed by the institution."""
        return sign(self.to_payload(), AGREEMENT_TYPE, key)

    @property
    def reward_account(self) -> str:
        """The ledger account that this institution is paid to."""
        return f"institution:{self.site}"


def plan_from_toml(text: str, *, source: str) -> StudyPlan:
    """Read a plan that a person wrote.

    Raises:
        OperatorError: not TOML, or a field is missing, unknown, mistyped or out of range; every such field is named.
    """
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise OperatorError(
            f"{source} is not valid TOML: {error}.",
            remedy="Mend the line that is named; `accord study new` writes a template.",
        ) from error
    try:
        return StudyPlan.model_validate(document)
    except ValidationError as error:
        raise OperatorError(
            f"{source} is not a valid study plan: {describe(error)}.",
            remedy="Mend the fields that are named, then run `accord study validate` again.",
        ) from error


def open_plan(data: bytes, *, signer: PublicKey | None = None) -> tuple[StudyPlan, Envelope]:
    """Verify and read a signed plan.

    Raises:
        PeerError: the signature or the plan is not valid.
    """
    envelope = open_envelope(data, payload_type=PLAN_TYPE, signer=signer, max_bytes=2 * PLAN_BYTES_MAX)
    return read(StudyPlan, envelope.payload, max_bytes=PLAN_BYTES_MAX), envelope


def open_agreement(data: bytes, *, signer: PublicKey | None = None) -> tuple[Agreement, Envelope]:
    """Verify and read a signed agreement.

    Raises:
        PeerError: the signature or the agreement is not valid.
    """
    envelope = open_envelope(data, payload_type=AGREEMENT_TYPE, signer=signer, max_bytes=16 * 1024)
    return read(Agreement, envelope.payload), envelope


def read(kind: type[W], payload: bytes, *, max_bytes: int = PLAN_BYTES_MAX) -> W:
    """Parse the payload of a verified envelope.

    Raises:
        PeerError: it is not canonical JSON, not a valid document of this kind, or spells one in another way than
            :meth:`Wire.to_payload` does (a number as a text, a field that is null): one document has one hash.
    """
    remedy = "Both sides need the same version of Accord."
    try:
        document = kind.model_validate(parse_canonical(payload, max_bytes=max_bytes))
    except ValidationError as error:
        raise PeerError(f"A {kind.__name__} is refused: {describe(error)}.", remedy=remedy) from error
    if document.to_payload() != payload:
        raise PeerError(f"A {kind.__name__} is refused: its bytes are ambiguous.", remedy=remedy)
    return document
