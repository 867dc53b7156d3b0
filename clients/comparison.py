"""An institution's part in comparing people before a study starts: one noised sketch, sealed to the other institutions.

As in a round (``contribution``), the order is the promise: the charge is reserved and started before the first read of
data, consent is asked at that moment, and the noised sketch is stored together with the charge before its hash leaves.
Asked again, the node answers with what is stored; a comparison that a crash interrupted stays charged and is declined.
It is charged once in a study, whoever the others are.

The sketch is shown only when this node's own copy of the study's log says that commitments are closed, to exactly those
whose commitments it holds; and another's counts only if it is the one committed to.
"""

import itertools
import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from sqlalchemy import Engine

from clients.data.check import check_data
from clients.data.dataset import find_dataset, load_dataset
from clients.participation import Participation
from clients.privacy.budget import BudgetLedger, State
from clients.privacy.noise import NoiseSource
from clients.selection import round_use, select
from clients.storage import COMPARISON, KeyValue, recall, remember, sketch_key
from consent.registry import Registry, RoundOf
from consent.rules.decision import use_of
from federation.coordinator.protocols import OVERLAP_BYTES_MAX, OverlapReply, OverlapRequest
from federation.errors import OperatorError, PeerError, PrivacyError, UnavailableError
from federation.rules.accounting import overlap_event
from federation.rules.canonical import tagged_hash
from federation.rules.comparing import overlap_of
from federation.rules.documents import OverlapCommitment, OverlapRefusal, OverlapReport, PairProduct
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.overlap import pack_sketch, person_hashes, product, sketch_hash, sketch_of, unpack_sketch
from federation.rules.sealing import SECRET_BYTES, open_sealed, seal, sealing_key
from federation.rules.state import StudyState
from federation.rules.study import StudyPlan, read
from federation.storage.database import read as reading
from federation.storage.database import write

logger = logging.getLogger(__name__)

SALT_BYTES: Final = 32
REFUSALS: Final[Mapping[str, str]] = {
    "budget": "the comparison does not fit the privacy budget of this institution's people",
    "interrupted": "the node stopped while it made its sketch, which stays charged and is not repeated",
    "no-key": "this institution's database has no key for this comparison; its operators know why",
    "not-ready": "this institution's data set cannot be used as it is; its operators know why",
    "revoked": "this institution has revoked its agreement",
}


def make_sealing_key(engine: Engine, study: str) -> str:
    """The public key that this institution's agreement carries; the secret is made once and stays in its database."""
    with write(engine) as session:
        secret = recall(session, _secret_key(study))
        if secret is None:
            secret = secrets.token_hex(SECRET_BYTES)
            remember(session, _secret_key(study), secret)
    return sealing_key(bytes.fromhex(secret))


class _DeclinedError(Exception):
    """The comparison is declined with a code of :data:`REFUSALS`; ``detail`` stays inside."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class ComparisonParts:
    """What a comparison runs on. ``state`` is the study as this node's own copy of its log tells it."""

    plan: StudyPlan
    key: PrivateKey
    engine: Engine
    registry: Registry
    participation: Participation
    noise: NoiseSource
    clock: Callable[[], datetime]
    state: Callable[[], StudyState]
    dataset: str | None = None
    agreed: Callable[[], bool] = lambda: True
    await_grants: Callable[[], None] = lambda: None


class Comparison:
    """One institution's comparison in one study; its plan has an ``overlap`` section."""

    def __init__(self, parts: ComparisonParts) -> None:
        self._parts = parts
        self._study = parts.plan.study_id
        self._did = parts.key.public.did
        self._budget = BudgetLedger(parts.engine, clock=parts.clock)
        self._making = threading.Lock()

    def handle(self, peer: PublicKey, payload: bytes) -> bytes:
        """Answer the coordinator's request for the next step.

        Raises:
            PeerError: not the coordinator, another study, or malformed.
            UnavailableError: this node's copy of the log is not so far yet, the consents cannot be asked now, or the
                sketch is being made for an earlier request, whose answer nobody awaits any more.
        """
        request = read(OverlapRequest, payload, max_bytes=OVERLAP_BYTES_MAX)
        if peer != self._parts.state().coordinator or request.study != self._study:
            raise PeerError("This node takes part in another study.", remedy="Ask the study's own institutions.")
        try:
            if not self._parts.agreed():
                raise _DeclinedError("revoked", "the agreement was revoked here")
            match request.step:
                case "commit":
                    return OverlapReply(kind="committed", envelope=self._commit()).to_payload()
                case "show":
                    return OverlapReply(kind="shown", sealed=self._show()).to_payload()
                case _:
                    return OverlapReply(kind="reported", envelope=self._report(request.sealed or {})).to_payload()
        except _DeclinedError as declined:
            logger.warning("comparison declined: %s: %s", declined.code, declined)
            refusal = OverlapRefusal(study=self._study, code=declined.code, message=REFUSALS[declined.code])
            envelope = refusal.sign(self._parts.key).to_bytes().decode("utf-8")
            return OverlapReply(kind="declined", envelope=envelope).to_payload()

    def _commit(self) -> str:
        """The signed commitment; made at the first time, with the sketch."""
        if not self._making.acquire(blocking=False):
            raise UnavailableError("The sketch is being made.", remedy="Ask again in a few seconds.")
        try:
            stored = self._stored()
            if stored is None:
                self._secret()
                stored = self._make()
        finally:
            self._making.release()
        self._parts.participation.finish(COMPARISON, released=True)
        return str(stored["commitment"])

    def _make(self) -> dict[str, Any]:
        """Charge, ask consents, read, sketch, add noise; store all of it with the charge."""
        parts, study, terms = self._parts, self._study, overlap_of(self._parts.state())
        try:
            entry = find_dataset(parts.engine, parts.dataset)
        except OperatorError as error:
            raise _DeclinedError("not-ready", f"{error.message} {error.remedy}") from error
        parts.await_grants()
        self._charge()
        try:
            data = check_data(load_dataset(entry), parts.plan.schema_contract, subject_column=entry.subject_column)
        except OperatorError as error:
            raise _DeclinedError("not-ready", f"{error.message} {error.remedy}") from error
        data, decided_at = data.of_part(parts.plan.trained_on), parts.clock()
        use, of = use_of(parts.plan, self._did), RoundOf(study, COMPARISON)
        selection = select(data, parts.registry.decide_all(use, decided_at, data.subjects, round_use=of))
        exact = sketch_of(person_hashes(selection.batch), terms.buckets, bytes.fromhex(parts.plan.plan_hash))
        salt = secrets.token_bytes(SALT_BYTES)
        noised = pack_sketch(exact + parts.noise.discrete_gaussian(terms.buckets, Fraction(terms.noise_multiplier)))
        commitment = OverlapCommitment(
            study=study,
            sketch=sketch_hash(noised, study=study, did=self._did),
            exact=tagged_hash("overlap-exact", salt, pack_sketch(exact)).hex(),
            rows=selection.rows.commitment.hex(),
            event=overlap_event(parts.plan),
        )
        stored = {
            "sketch": noised.hex(),
            "salt": salt.hex(),
            "commitment": commitment.sign(parts.key).to_bytes().decode("utf-8"),
        }
        kept = KeyValue(key=sketch_key(study), value=json.dumps(stored))
        row = round_use(
            selection, study=self._study, number=COMPARISON, dataset_sha256=data.sha256, decided_at=decided_at
        )
        self._budget.commit(study, COMPARISON, overlap_event(parts.plan), together_with=[kept, row])
        logger.info("comparison: sketch committed")
        return stored

    def _charge(self) -> None:
        charge = self._budget.charge(self._study, COMPARISON)
        if charge is not None and charge.state in (State.STARTED, State.COMMITTED):
            raise _DeclinedError("interrupted", "the charge was started, and no sketch is stored")
        try:
            self._budget.reserve(self._study, COMPARISON, overlap_event(self._parts.plan))
            self._budget.start(self._study, COMPARISON)
        except PrivacyError as error:
            raise _DeclinedError("budget", f"{error.message} {error.remedy}") from error

    def _show(self) -> dict[str, str]:
        """This institution's noised sketch, sealed to each other party that committed to one."""
        state, stored = self._closed(), self._stored()
        if stored is None or self._did not in state.overlap.commitments:
            raise PeerError("This node has committed to no sketch.", remedy="Ask those who have.")
        secret, message = self._secret(), bytes.fromhex(stored["sketch"])
        return {
            did: seal(
                message, secret=secret, to=self._key_of(state, did), study=self._study, sender=self._did, recipient=did
            ).hex()
            for did in state.overlap.commitments
            if did != self._did
        }

    def _report(self, sealed: Mapping[str, str]) -> str:
        """The products of all sketches that open and are those committed to, signed."""
        state, stored, buckets = self._closed(), self._stored(), overlap_of(self._parts.state()).buckets
        if stored is None:
            raise PeerError("This node has committed to no sketch.", remedy="Ask those who have.")
        sketches = {self._did: unpack_sketch(bytes.fromhex(stored["sketch"]), buckets)}
        for did, text in sorted(sealed.items()):
            commitment = state.overlap.commitments.get(did)
            if commitment is None or did == self._did:
                continue
            try:
                message = open_sealed(
                    bytes.fromhex(text),
                    secret=self._secret(),
                    by=self._key_of(state, did),
                    study=self._study,
                    sender=did,
                    recipient=self._did,
                )
                if sketch_hash(message, study=self._study, did=did) != commitment.sketch:
                    raise PeerError("It is not the sketch that was committed to.", remedy="Keep it as evidence.")
                sketches[did] = unpack_sketch(message, buckets)
            except PeerError as error:
                logger.warning("the sketch of %s does not count: %s", state.site(did), error.message)
        report = OverlapReport(
            study=self._study,
            squares={did: product(sketch, sketch) for did, sketch in sorted(sketches.items())},
            pairs=tuple(
                PairProduct(first=first, second=second, product=product(sketches[first], sketches[second]))
                for first, second in itertools.combinations(sorted(sketches), 2)
            ),
        )
        return report.sign(self._parts.key).to_bytes().decode("utf-8")

    def _closed(self) -> StudyState:
        """The study, once its log says that nobody commits to a sketch any more."""
        state = self._parts.state()
        if not state.overlap.closed:
            raise UnavailableError("This node has not seen that commitments are closed.", remedy="Show it the log.")
        return state

    def _key_of(self, state: StudyState, did: str) -> str:
        return state.agreements[did].overlap_key or ""

    def _secret(self) -> bytes:
        with reading(self._parts.engine) as session:
            secret = recall(session, _secret_key(self._study))
        if secret is None:
            raise _DeclinedError("no-key", "the sealing key is missing: was a backup put back?")
        return bytes.fromhex(secret)

    def _stored(self) -> dict[str, Any] | None:
        with reading(self._parts.engine) as session:
            text = recall(session, sketch_key(self._study))
        return None if text is None else dict(json.loads(text))


def _secret_key(study: str) -> str:
    return f"overlap/{study}/key"
