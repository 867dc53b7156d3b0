"""An institution's part in one round: consent, budget, training, release, commitment; and showing it afterwards.

The order is the promise. The whole charge is reserved and started, durably, before the first read of data; consent is
asked at that moment, for each person, and who is eligible is stored in the answer's own transaction; what was released
is stored together with the charge before anything is sent. A repeated request is answered with what is stored and never
trains again. A round that a crash interrupted between reading and storing stays charged and is not repeated. A refusal
tells the coordinator one of a few fixed sentences; what exactly was wrong (a line, a value, a count) is for the
institution's own operators.
"""

import base64
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from sqlalchemy import Engine
from sqlmodel import SQLModel

from clients.data.check import CheckedData, check_data
from clients.data.dataset import find_dataset, load_dataset
from clients.participation import Participation
from clients.privacy.budget import BudgetLedger, State
from clients.privacy.cohort import judge_cohort
from clients.privacy.noise import NoiseSource
from clients.privacy.release import release
from clients.selection import Selection, round_use, select
from clients.storage import Dataset, KeyValue, StoredUpdate, recall, remember
from clients.update import PreparedUpdate, Provenance, prepare_update
from consent.registry import Registry, RoundOf
from consent.rules.decision import use_of
from federation.errors import OperatorError, PeerError, PrivacyError, UnavailableError
from federation.rules.accounting import count_event, derive_noise_multiplier, round_event
from federation.rules.admission import parameter_count
from federation.rules.documents import ConsistencyProof, Refusal
from federation.rules.fixedpoint import Integers, from_fixed, pack, unpack
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.study import Agreement, StudyPlan
from federation.rules.vectors import compressed, unpack_vector
from federation.storage.blobs import BlobStore
from federation.storage.code import code_hash
from federation.storage.database import read, write

logger = logging.getLogger(__name__)

NONCE_BYTES: Final = 32
REFUSALS: Final[Mapping[str, str]] = {
    "budget": "the round does not fit the privacy budget of this institution's people",
    "cohort": "the noisy count of people whose data may be used is below the plan's minimum",
    "consents-unknown": "this institution's consent registry cannot say who may be used; its operators know why",
    "no-data-set": "this institution's node does not know which data set it is to use; its operators know why",
    "interrupted": "the node stopped while it worked on this round, which stays charged and is not repeated",
    "not-ready": "this institution's data set cannot be used as it is; its operators know why",
    "restored": "this institution's database is older than the study; it charges what is missing and comes back",
    "revoked": "this institution has revoked its agreement",
    "unsafe": "the training engine refused for privacy",
    "wrong-round": "the plan has no such round",
    "wrong-code": "this institution runs code that the plan does not approve",
    "wrong-base": "this institution made an update for this round on another model",
}


class _DeclinedError(Exception):
    """The round is refused with a code of :data:`REFUSALS`; ``detail`` stays inside."""

    def __init__(self, code: str, detail: str, *, remembered: bool = True) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.remembered = remembered


@dataclass(frozen=True, slots=True)
class Task:
    """What the coordinator asks for: an update of ``base_model`` in ``round_number``.

    ``consent_size`` is the size of this institution's consent log that the study saw last (0: none yet), ``updates``
    the number of its updates that the study holds.
    """

    round_number: int
    base_model: str
    consent_size: int
    updates: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A signed document: ``kind`` is ``commitment``, ``refusal`` or ``update``."""

    kind: str
    data: bytes


class Contribution:
    """One institution's work for one study.

    Args:
        plan: the study's plan.
        agreement: what this institution signed.
        key: the institution's key.
        engine: the node's database.
        registry: the consents.
        participation: tells the registry what became of a round.
        blobs: where chunks are served from.
        fetch: fetches a blob by its name.
        noise: where privacy noise comes from.
        clock: the time.
        dataset: the registered data set's name; None takes the only one.
        agreed: whether the agreement still stands, asked at every round.
        await_grants: gives grants that wait for witnesses a bounded time, before a round begins.
    """

    def __init__(
        self,
        *,
        plan: StudyPlan,
        agreement: Agreement,
        key: PrivateKey,
        engine: Engine,
        registry: Registry,
        participation: Participation,
        blobs: BlobStore,
        fetch: Callable[[str], bytes],
        noise: NoiseSource,
        clock: Callable[[], datetime],
        dataset: str | None = None,
        agreed: Callable[[], bool] = lambda: True,
        await_grants: Callable[[], None] = lambda: None,
    ) -> None:
        if agreement.plan_hash != plan.plan_hash:
            raise PeerError("The agreement is for another plan.", remedy="Review and sign this plan's agreement.")
        self._plan = plan
        self._agreement = agreement
        self._key = key
        self._engine = engine
        self._registry = registry
        self._participation = participation
        self._blobs = blobs
        self._fetch = fetch
        self._noise = noise
        self._clock = clock
        self._dataset = dataset
        self._agreed = agreed
        self._await_grants = await_grants
        self._budget = BudgetLedger(engine, clock=clock)

    def commit(self, task: Task) -> Answer:
        """Train for a round, and answer with the commitment, or with a signed refusal that says why not."""
        refused = self._remembered_refusal(task.round_number)
        if refused is not None:
            return Answer("refusal", refused)
        try:
            stored = self._stored(task.round_number)
            if stored is None:
                self._check_agreed(task.round_number)
                self._check_remembers(task)
                return Answer("commitment", self._train(task))
            if stored.base_sha256 != task.base_model:
                raise _DeclinedError("wrong-base", "the coordinator names another base model", remembered=False)
            self._participation.finish(task.round_number, released=True)
            return Answer("commitment", stored.commitment)
        except _DeclinedError as declined:
            logger.warning("round %d refused: %s: %s", task.round_number, declined.code, declined.detail)
            self._participation.finish(task.round_number, released=False)
            return Answer("refusal", self._refusal(task, declined))

    def reveal(self, round_number: int) -> Answer:
        """Show the update that was committed.

        Raises:
            PeerError: nothing was committed for this round.
        """
        stored = self._stored(round_number)
        if stored is None:
            raise PeerError(f"No update was committed for round {round_number}.", remedy="Ask in an open round.")
        return Answer("update", stored.envelope)

    def _train(self, task: Task) -> bytes:
        """Make, store and charge this round's update; its signed commitment."""
        plan, study, number = self._plan, self._plan.study_id, task.round_number
        base = unpack_vector(self._fetch(task.base_model), plan.aggregation.encoding, length=parameter_count(plan))
        event = round_event(plan)
        entry = self._find_dataset()
        with _asking_consents():
            self._await_grants()
        self._charge(number)
        data = self._read_data(entry)
        decided_at = self._clock()
        selection = self._select(data, decided_at, number)
        cohort = judge_cohort(len(selection.subjects), plan, self._noise)
        use = round_use(
            selection,
            study=study,
            number=number,
            dataset_sha256=data.sha256,
            decided_at=decided_at,
            noisy_count=cohort.noisy_count,
        )
        if not cohort.large_enough:
            self._budget.commit(study, number, count_event(plan), together_with=[use])
            raise _DeclinedError("cohort", "too few people may be used at this moment")
        vector, left_out = compressed(self._compute(base, selection), self._left_out(), plan.aggregation)
        prepared = self._prepare(task, vector, selection)
        for chunk in prepared.chunks:
            self._blobs.put(chunk)
        stored = StoredUpdate(
            study=study,
            round=number,
            base_sha256=task.base_model,
            update_sha256=prepared.update.update,
            nonce=prepared.update.nonce,
            payload=prepared.packed,
            commitment=prepared.commitment.sign(self._key).to_bytes(),
            envelope=prepared.update.sign(self._key).to_bytes(),
            created_at=format_instant(self._clock()),
        )
        commitment = stored.commitment
        rows: list[SQLModel] = [stored, use]
        if plan.aggregation.compression is not None:
            rows.append(KeyValue(key=self._left_out_key, value=base64.b64encode(pack(left_out)).decode("ascii")))
        self._budget.commit(study, number, event, together_with=rows)
        self._participation.finish(number, released=True)
        logger.info("round %d: update committed", number)
        return commitment

    def _check_agreed(self, number: int) -> None:
        """Refuse, before anything is charged, what the agreement does not cover."""
        if not 1 <= number <= self._plan.rounds.count:
            raise _DeclinedError("wrong-round", f"the plan has {self._plan.rounds.count} rounds", remembered=False)
        if not self._agreed():
            raise _DeclinedError("revoked", "the agreement was revoked here")
        if code_hash() not in self._plan.code_approved:
            raise _DeclinedError("wrong-code", f"the plan does not approve this code, {code_hash()}", remembered=False)

    def _check_remembers(self, task: Task) -> None:
        """Refuse, uncharged, while the study knows more of this institution than its own database: a backup.

        What the budget forgot ``clients.participation`` charges as soon as the study's log arrives; until then nobody
        here knows what was spent. What the consents forgot only a newer copy of them can tell.
        """
        study = self._plan.study_id
        charged = sum(
            charge.study == study and 1 <= charge.round <= self._plan.rounds.count and charge.counts
            for charge in self._budget.charges()
        )
        if charged < task.updates:
            detail = f"the study holds {task.updates} updates, and the budget knows {charged} rounds"
            raise _DeclinedError("restored", detail, remembered=False)
        with _asking_consents():
            size = self._registry.checkpoint().checkpoint.size
        if size < task.consent_size:  # withdrawals may be missing from it
            detail = f"the study saw a consent log of {task.consent_size} entries; this one, rolled back, has {size}"
            raise _DeclinedError("consents-unknown", detail, remembered=False)

    def _charge(self, number: int) -> None:
        """Reserve and start the round's whole charge."""
        study = self._plan.study_id
        charge = self._budget.charge(study, number)
        if charge is not None and charge.state is State.STARTED:
            raise _DeclinedError("interrupted", "the charge was started, and nothing was stored")
        if charge is not None and charge.state is State.COMMITTED:  # and no update is stored
            counted = charge.event == count_event(self._plan)
            raise _DeclinedError("cohort" if counted else "interrupted", "the round is over, and nothing was stored")
        try:
            self._budget.reserve(study, number, round_event(self._plan))
            self._budget.start(study, number)
        except PrivacyError as error:
            raise _DeclinedError("budget", f"{error.message} {error.remedy}") from error

    def _find_dataset(self) -> Dataset:
        """Which file: a question of the register that reads nothing of it, so it comes before the charge."""
        try:
            return find_dataset(self._engine, self._dataset)
        except OperatorError as error:
            raise _DeclinedError("no-data-set", f"{error.message} {error.remedy}", remembered=False) from error

    def _read_data(self, entry: Dataset) -> CheckedData:
        try:
            data = check_data(load_dataset(entry), self._plan.schema_contract, subject_column=entry.subject_column)
        except OperatorError as error:
            raise _DeclinedError("not-ready", f"{error.message} {error.remedy}") from error
        return data.of_part(self._plan.trained_on)

    def _select(self, data: CheckedData, now: datetime, number: int) -> Selection:
        """Ask every subject's consent, now; from here on the round is in flight for whoever is eligible."""
        use, of = use_of(self._plan, self._key.public.did), RoundOf(self._plan.study_id, number)
        with _asking_consents():
            decisions = self._registry.decide_all(use, now, data.subjects, round_use=of)
        return select(data, decisions)

    def _compute(self, base: Integers, selection: Selection) -> Integers:
        # torch and Opacus take seconds to load: only here, where they are needed
        from clients.privacy.dp_training import train

        try:
            delta = train(
                self._plan,
                from_fixed(base),
                selection.batch,
                self._agreement.nominal_cohort,
                derive_noise_multiplier(self._plan),
                self._noise,
            )
            return release(delta, self._plan)
        except PrivacyError as error:
            raise _DeclinedError("unsafe", error.message) from error

    def _left_out(self) -> Integers:
        """What compression has left out so far, int64 [P]: noised already, so that it costs nothing to send later."""
        length = parameter_count(self._plan)
        with read(self._engine) as session:
            text = recall(session, self._left_out_key)
        return np.zeros(length, dtype=np.int64) if text is None else unpack(base64.b64decode(text), length=length)

    @property
    def _left_out_key(self) -> str:
        return f"left-out/{self._plan.study_id}"

    def _prepare(self, task: Task, vector: Integers, selection: Selection) -> PreparedUpdate:
        checkpoint = self._registry.checkpoint()
        proof: tuple[bytes, ...] = ()
        if task.consent_size:
            proof = self._registry.consistency(task.consent_size, checkpoint.checkpoint.size)
        return prepare_update(
            vector,
            party=self._key.public,
            study=self._plan.study_id,
            round_number=task.round_number,
            base_model=task.base_model,
            nonce=secrets.token_bytes(NONCE_BYTES),
            aggregation=self._plan.aggregation,
            provenance=Provenance(
                event=dict(round_event(self._plan)),
                consent_checkpoint=checkpoint.to_bytes().decode("utf-8"),
                consent_consistency=ConsistencyProof(
                    old_size=task.consent_size, proof=tuple(part.hex() for part in proof)
                ),
                dataset_commitment=selection.rows.commitment.hex(),
                code_hash=code_hash(),
            ),
        )

    def _stored(self, round_number: int) -> StoredUpdate | None:
        with read(self._engine) as session:
            return session.get(StoredUpdate, (self._plan.study_id, round_number))

    def _remembered_refusal(self, round_number: int) -> bytes | None:
        with read(self._engine) as session:
            text = recall(session, self._refusal_key(round_number))
        return text.encode("utf-8") if text is not None else None

    def _refusal(self, task: Task, declined: _DeclinedError) -> bytes:
        refusal = Refusal(
            study=self._plan.study_id,
            round=task.round_number,
            code=declined.code,
            message=REFUSALS[declined.code],
        )
        data = refusal.sign(self._key).to_bytes()
        if declined.remembered:
            with write(self._engine) as session:
                remember(session, self._refusal_key(task.round_number), data.decode("utf-8"))
        return data

    def _refusal_key(self, round_number: int) -> str:
        return f"refusal/{self._plan.study_id}/{round_number}"


@contextlib.contextmanager
def _asking_consents() -> Iterator[None]:
    """A registry that cannot answer (rolled back, a clock far off) means that nobody may be used; why stays inside."""
    try:
        yield
    except (OperatorError, UnavailableError) as error:
        raise _DeclinedError("consents-unknown", f"{error.message} {error.remedy}", remembered=False) from error
