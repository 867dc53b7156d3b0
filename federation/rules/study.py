"""The study plan, and the agreement that an institution signs.

A plan says everything that binds the parties: purpose, columns with public bounds (``schema``), model, privacy, rounds,
value and reward. Its canonical bytes are hashed; the hash is the study's identity. Decimals are exact (``Decimal``) and
travel as strings. An institution that signs an :class:`Agreement` agrees to one plan's hash and to nothing else.
"""

from decimal import Decimal
from functools import cached_property
from typing import Annotated, Final, Literal, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from federation.errors import OperatorError, PeerError
from federation.rules.canonical import canonical_bytes, parse_canonical, sha256_hex
from federation.rules.envelope import Envelope, open_envelope, sign
from federation.rules.failover import Failover
from federation.rules.families import PARAMETERS_MAX, CnnModel, ModelSpec, TransformerModel, size
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.parts import EVERYBODY, rest_of
from federation.rules.schema import SchemaContract
from federation.rules.terms import (
    COALITIONS_MAX,
    TABLE_PLAYERS_MAX,
    Aggregation,
    Cohort,
    ConsentTerms,
    Overlap,
    Privacy,
    Purpose,
    Reward,
    Rounds,
    Stake,
    Training,
    Validation,
    Valuation,
    Voting,
    coalitions_needed,
)
from federation.rules.wire import Sha256Hex, Slug, Text, Wire, describe, parse_toml

PLAN_TYPE: Final = "application/vnd.accord.study-plan.v1+json"
AGREEMENT_TYPE: Final = "application/vnd.accord.agreement.v1+json"
PLAN_BYTES_MAX: Final = 256 * 1024


W = TypeVar("W", bound=Wire)


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
    failover: Failover | None = None
    stake: Stake | None = None
    voting: Voting | None = None
    overlap: Overlap | None = None
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
        if fees is not None and (self.rounds.invite, self.rounds.enough) != (None, None):
            raise ValueError("reward.fees has no meaning with rounds.invite or rounds.enough")
        return self

    @model_validator(mode="after")
    def _weighed(self) -> "StudyPlan":
        if self.voting is not None and self.voting.weights == "stake" and self.stake is None:
            raise ValueError('voting.weights = "stake" needs the section stake')
        return self

    @model_validator(mode="after")
    def _valued(self) -> "StudyPlan":
        """Beyond 14 institutions values are sampled: whether what the plan asks for can be had."""
        count, sampling, method = self.rounds.participants, self.valuation.sampling, self.valuation.method
        if (count > TABLE_PLAYERS_MAX) != (sampling is not None):
            needed = "is needed" if sampling is None else "has no meaning"
            raise ValueError(f"valuation.sampling {needed} with {count} participants (more than 14 are sampled)")
        if sampling is None:
            return self
        if self.overlap is not None:
            raise ValueError(f"overlap cannot go with valuation.sampling: at most {TABLE_PLAYERS_MAX} participants")
        least = coalitions_needed(method, count)
        if sampling.coalitions_max < least:
            raise ValueError(
                f"valuation.sampling.coalitions_max: {method} of {count} participants needs {least} or more"
                f"{'' if least <= COALITIONS_MAX else f', above the limit of {COALITIONS_MAX}: use shapley'}"
            )
        if self.reward.pay == "lower-bound" and method != "shapley":
            raise ValueError(f"reward.pay: lower bounds of more than 14 participants need shapley, not {method}")
        if count * size(self.model, self.schema_contract.inputs) > TABLE_PLAYERS_MAX * PARAMETERS_MAX:
            raise ValueError(
                f"model: with {count} participants at most {TABLE_PLAYERS_MAX * PARAMETERS_MAX // count} parameters"
            )
        return self

    @model_validator(mode="after")
    def _scored(self) -> "StudyPlan":
        panel = self.valuation.panel
        if panel is None:
            return self
        if panel.quorum > self.rounds.participants:
            raise ValueError("valuation.panel.quorum cannot be above rounds.participants")
        if self.valuation.method != "shapley":
            raise ValueError(f"valuation.panel needs the method shapley, not {self.valuation.method}")
        for other, there in (
            ('reward.pay = "lower-bound"', self.reward.z is not None),
            ("cohort.part", self.cohort.part is not None),
            ("the section valuation.sampling", self.valuation.sampling is not None),
            ("the section overlap", self.overlap is not None),  # impartial for sites, not for clusters of them
            ('aggregation.rule = "trust-anchored"', self.aggregation.anchored),  # scoring has no reference updates
        ):
            if there:
                raise ValueError(f"valuation.panel and {other} do not go together")
        return self

    @model_validator(mode="after")
    def _lattice(self) -> "StudyPlan":
        steps = self.privacy.clip * self.training.local_steps * self.training.learning_rate
        bound_max = Decimal(2**20)
        if steps > bound_max or self.aggregation.norm_bound > bound_max:
            raise ValueError("learning_rate x clip x local_steps and norm_bound must stay below 2^20")
        return self

    @model_validator(mode="after")
    def _followed(self) -> "StudyPlan":
        more = {
            "stake": self.stake,
            "voting": self.voting,
            "overlap": self.overlap,
            "aggregation.root": self.aggregation.root,
            "valuation.panel": self.valuation.panel,
        }
        named = [name for name, section in more.items() if section is not None]
        if self.failover is not None and named:
            raise ValueError(f"failover cannot go with {', '.join(named)} yet: a standby does not take that over")
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

    @model_validator(mode="after")
    def _anchored(self) -> "StudyPlan":
        if self.aggregation.anchored and self.model.family != "logistic":
            raise ValueError("aggregation.rule trust-anchored: reference updates are of logistic models only")
        if self.aggregation.anchored and self.reward.z is not None:
            raise ValueError("aggregation.rule trust-anchored has no standard errors: reward.pay must be value")
        return self

    @property
    def study_id(self) -> str:
        """A name that people can read and that still names one plan: ``NAME-`` and 12 digits of the plan's hash."""
        return f"{self.name}-{self.plan_hash[:12]}"

    @property
    def trained_on(self) -> str:
        """The part of an institution's people (``federation.rules.parts``) that rounds are about; empty: everybody."""
        panel = self.valuation.panel
        return (self.cohort.part or EVERYBODY) if panel is None else rest_of(panel.held_out)

    def sign(self, key: PrivateKey) -> Envelope:
        """The plan, signed by the coordinator."""
        return sign(self.to_payload(), PLAN_TYPE, key)


class Agreement(Wire):
    """An institution's word that it takes part in one plan.

    ``site`` is the short name that reports use; ``nominal_cohort`` the public, rounded size that weights and sums use
    (never the exact count); ``reward_account`` the account ``institution:SITE`` that is paid.

    Where the plan compares overlap: ``overlap_key`` is the X25519 public key (hex) that other institutions seal their
    sketches to, made for this study alone; ``same_owner_as`` names the sites that have the same owner. It counts
    between two institutions that name each other.
    """

    version: Literal[1] = 1
    study: str
    plan_hash: Sha256Hex
    site: Slug
    nominal_cohort: Annotated[int, Field(ge=1, le=10**9)]
    signed_at: str
    overlap_key: Sha256Hex | None = None
    same_owner_as: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=TABLE_PLAYERS_MAX - 1)] | None = None

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
