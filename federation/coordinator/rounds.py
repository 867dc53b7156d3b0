"""One round: open, collect commitments, collect updates, admit or refuse each with a reason, aggregate, close.

Every step goes into the log before the next begins, so a coordinator that dies and restarts goes on where the log
ends: an unclosed round is reopened and the nodes answer with what they stored. No step waits longer than the plan's
deadline.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

from federation.errors import AccordError, PeerError
from federation.flower.grid import ExchangeGrid, node_id_of
from federation.flower.strategy import AccordStrategy
from federation.learning.reference import reference_update
from federation.network.exchange import Exchange
from federation.rules.admission import AdmissionError, check_arrays, check_update, parameter_count
from federation.rules.aggregation import rule_of
from federation.rules.cohorts import invited, may_close
from federation.rules.documents import Commitment, Refusal, open_signed
from federation.rules.encoding import SubjectBatch
from federation.rules.entries import (
    CommitmentLate,
    CommitmentsClosed,
    Measured,
    ParticipationRefused,
    RoundClosed,
    RoundOpened,
    RoundReopened,
    UpdateAdmitted,
    UpdateCommitted,
    UpdateRefused,
)
from federation.rules.instant import format_instant
from federation.rules.keys import PublicKey
from federation.rules.state import RoundState, StudyState
from federation.rules.vectors import pack_vector, unpack_vector
from federation.storage.blobs import BlobStore

from .gathering import Gathering
from .history import StudyHistory
from .valuing import Valuer

logger = logging.getLogger(__name__)

_RESEND_S = 2.0
_POLL_S = 0.02

OnReply = Callable[[PublicKey, Any], None]


class RoundRunner:
    """Runs the rounds of one study.

    Args:
        history: the study's log and fold.
        exchange: the network.
        grid: Flower messages over that network.
        strategy: what is sent, and how replies are aggregated.
        blobs: models and updates.
        valuer: seals each round's value table.
        stop: ends every wait.
        sealed: where reference updates wait for their round's end.
        root: the sponsor's root set, where the plan's rule needs one.
        on_turn: called again and again while answers are awaited.
    """

    def __init__(
        self,
        *,
        history: StudyHistory,
        exchange: Exchange,
        grid: ExchangeGrid,
        strategy: AccordStrategy,
        blobs: BlobStore,
        valuer: Valuer,
        stop: threading.Event,
        sealed: BlobStore,
        root: SubjectBatch | None = None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._history = history
        self._exchange = exchange
        self._grid = grid
        self._strategy = strategy
        self._blobs = blobs
        self._valuer = valuer
        self._stop = stop
        self._sealed = sealed
        self._root = root
        self._on_turn = on_turn
        plan = history.state.plan
        self._tasks: dict[str, PublicKey] = {}
        self._gathering = Gathering(exchange, blobs, lambda update, packed: check_arrays(update, packed, plan))

    def open(self, there: Collection[str]) -> None:
        """Append the next round's opening; ``there``: the parties (did) that are connected, or visited lately."""
        state = self._history.state
        if state.model is None:
            raise ValueError("the study has not started")
        now = self._history.now()
        measured = None
        if state.plan.rounds.invite is not None:
            measured = tuple(self._measured(did, there=did in there) for did in state.active)
        body = RoundOpened(
            base_model=state.model,
            participants=invited(state, measured or ()),
            deadline=self._deadline(now),
            measured=measured,
            reference=self._reference(state),
        )
        self._history.append(body, round_number=len(state.closed) + 1)

    def _measured(self, did: str, *, there: bool) -> Measured:
        """What this process measured last of a party, else what the log says."""
        party, before = PublicKey.from_did(did), self._history.state.measured.get(did)
        request_s = self._grid.request_s(party)
        return Measured(
            party=did,
            there=there,
            request_ms=round(1000 * request_s) if request_s is not None else before and before.request_ms,
            bytes_s=self._gathering.bytes_s(party) or (before and before.bytes_s),
        )

    def _reference(self, state: StudyState) -> str | None:
        """Work out and keep the sponsor's update of the next round; it is shown when the round closes."""
        if self._root is None or state.model is None:
            return None
        encoding = state.plan.aggregation.encoding
        base = unpack_vector(self._blobs.get(state.model), encoding, length=parameter_count(state.plan))
        return self._sealed.put(pack_vector(reference_update(state.plan, base, self._root), encoding))

    def reopen(self) -> None:
        """Give the round that a former process left open a new deadline, if its own has passed."""
        current = self._history.state.round
        now = self._history.now()
        if current is not None and current.phase == "open" and now >= current.deadline:
            body = RoundReopened(deadline=self._deadline(now))
            self._history.append(body, round_number=current.number)

    def advance(self) -> None:
        """Carry the round in progress to its end (or until ``stop``)."""
        current = self._current()
        if current.phase == "open":
            self._collect_commitments(current)
            if self._stop.is_set():
                return
            self._history.append(CommitmentsClosed(), round_number=current.number)
        self._collect_updates(self._current())
        if not self._stop.is_set():
            self._close(self._current())

    def _deadline(self, now: datetime) -> str:
        wait = timedelta(seconds=self._history.state.rounds.deadline_s + 1)  # whole seconds are cut off
        return format_instant(now + wait)

    def _current(self) -> RoundState:
        current = self._history.state.round
        if current is None:
            raise ValueError("no round is in progress")
        return current

    def _collect_commitments(self, current: RoundState) -> None:
        state = self._history.state
        config = self._strategy.round_config(
            round_number=current.number,
            base_model=current.base_model,
            deadline=format_instant(current.deadline),
            consent_sizes={did: view.size for did, view in state.consent_logs.items()},
            updates=Counter(did for done in state.closed for did in done.admitted),
        )
        self._grid.set_nodes(PublicKey.from_did(did) for did in current.participants)
        messages = self._strategy.configure_train(current.number, self._strategy.no_arrays(), config, self._grid)

        self._tasks = {message.metadata.message_id: party for party, message in self._by_party(messages).items()}

        def unanswered() -> set[str]:
            now = self._current()
            return set(now.participants) - set(now.commitments) - set(now.refusals)

        self._converse(
            messages,
            wanted=unanswered,
            until=lambda: may_close(state.plan, self._current(), self._history.now()),
            on_reply=self._log_answer,
        )

    def _log_answer(self, party: PublicKey, reply: Any) -> None:
        """Log what a node answered to the task: a commitment, or its refusal."""
        number = self._current().number
        name, data = self._strategy.answer_of(reply)
        if name == "commitment":
            _, envelope = open_signed(Commitment, data, signer=party)
            body: Any = UpdateCommitted(envelope=envelope.to_bytes().decode("utf-8"))
        elif name == "refusal":
            _, envelope = open_signed(Refusal, data, signer=party)
            body = ParticipationRefused(envelope=envelope.to_bytes().decode("utf-8"))
        else:
            raise PeerError(f"The node answered {name!r}.", remedy="Both sides need the same version of Accord.")
        self._history.append(body, round_number=number, party=party)

    def _collect_updates(self, current: RoundState) -> None:
        parties = [PublicKey.from_did(did) for did in sorted(current.commitments)]
        self._grid.set_nodes(parties)
        node_ids = [node_id_of(party) for party in parties]
        messages = self._strategy.configure_reveal(current.number, self._grid, node_ids)
        deadline = time.monotonic() + self._history.state.rounds.deadline_s

        def undecided() -> set[str]:
            now = self._current()
            return set(now.commitments) - set(now.admitted) - set(now.rejected)

        self._converse(
            messages,
            wanted=undecided,
            busy=lambda: self._gathering.under_way,
            until=lambda: time.monotonic() >= deadline,
            on_reply=self._take_up,
            on_turn=self._decide,
        )
        if self._stop.is_set():
            return
        coming = self._gathering.under_way
        for did in sorted(undecided()):
            what = "its arrays had not arrived at the deadline" if did in coming else "no answer before the deadline"
            self._refuse(PublicKey.from_did(did), AdmissionError("not-revealed", what))

    def _take_up(self, party: PublicKey, reply: Any) -> None:
        """Check a shown update; its arrays are fetched and checked in the background, and then decided on."""
        name, data = self._strategy.answer_of(reply)
        state = self._history.state
        current = self._current()
        try:
            if name != "update":
                raise AdmissionError("malformed", f"the node answered {name!r}")
            update, _ = check_update(
                data,
                plan=state.plan,
                party=party,
                round_number=current.number,
                base_model=current.base_model,
                commitment=current.commitments[party.did],
                consent_log=state.consent_logs.get(party.did),
            )
        except AdmissionError as error:
            self._refuse(party, error)
            return
        self._gathering.begin(party, data, update)

    def _log_late(self) -> None:
        """Log the commitments that came although commitments are closed: nobody is dropped in silence."""
        for reply in self._grid.pull_messages(list(self._tasks)):
            party, current = self._tasks[reply.metadata.reply_to_message_id], self._current()
            if party.did in {*current.commitments, *current.refusals, *current.late}:
                continue
            try:
                name, data = self._strategy.answer_of(reply)
                if name == "commitment":
                    _, envelope = open_signed(Commitment, data, signer=party)
                    body = CommitmentLate(envelope=envelope.to_bytes().decode("utf-8"))
                    self._history.append(body, round_number=current.number, party=party)
            except AccordError as error:
                self._ignore(party, error)

    def _decide(self) -> None:
        """Log the decision about every update whose arrays have come, or proved to be wrong; and who came too late."""
        self._log_late()
        number = self._current().number
        for done in self._gathering.ended():
            if done.error is None:
                body = UpdateAdmitted(envelope=done.data.decode("utf-8"))
                self._history.append(body, round_number=number, party=done.party)
            elif isinstance(done.error, AdmissionError):
                self._refuse(done.party, done.error)
            else:
                self._ignore(done.party, done.error)

    def _ignore(self, party: PublicKey, error: AccordError) -> None:
        logger.warning("answer of %s ignored: %s", self._history.state.site(party.did), error.message)

    def _refuse(self, party: PublicKey, error: AdmissionError) -> None:
        logger.warning("update of %s refused: %s", self._history.state.site(party.did), error.message)
        self._history.append(
            UpdateRefused(code=error.reason, message=error.message[:500]),
            round_number=self._current().number,
            party=party,
        )

    def _close(self, current: RoundState) -> None:
        state = self._history.state
        encoding = state.plan.aggregation.encoding
        base = unpack_vector(self._blobs.get(current.base_model), encoding, length=parameter_count(state.plan))
        quorate = len(current.admitted) >= current.quorum
        counted = dict(current.admitted) if quorate else {}
        vectors = self._gathering.take(counted)
        rule = rule_of(state.plan)
        if current.reference is not None:
            shown = self._sealed.get(current.reference)
            if self._blobs.put(shown) != current.reference:
                raise ValueError("a sealed reference update changed")
            rule = rule_of(state.plan, unpack_vector(shown, encoding, length=parameter_count(state.plan)))
        result = self._strategy.aggregate_vectors(base, vectors, state.weights, rule)
        body = RoundClosed(
            outcome="aggregated" if quorate else "no-quorum",
            updates={did: update.update for did, update in counted.items()},
            model=self._blobs.put(pack_vector(result, encoding)),
            value_table=self._valuer.seal(state, base=base, updates=vectors, rule=rule),
        )
        self._history.append(body, round_number=current.number)

    def _converse(
        self,
        messages: Iterable[Any],
        *,
        wanted: Callable[[], set[str]],
        until: Callable[[], bool],
        on_reply: OnReply,
        busy: Callable[[], Collection[str]] = tuple,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Push each message to its node, again when it comes back, and handle replies as they arrive.

        Who is ``wanted`` and ``busy`` (did) has answered, and is waited for without being asked again.

        A node's misbehaviour is logged and ends nothing: the others go on, and at the deadline it has not answered.
        """
        by_party = self._by_party(messages)
        ids = {message.metadata.message_id: party for party, message in by_party.items()}
        pushed: dict[PublicKey, float] = {}
        while not self._stop.is_set() and not until():
            missing = wanted()
            if not missing:
                return
            self._on_turn()
            there = {party for party in self._exchange.connected() if party.did not in busy()}
            due = [
                party
                for party in by_party
                if party.did in missing and party in there and time.monotonic() - pushed.get(party, -1e9) > _RESEND_S
            ]
            self._grid.push_messages([by_party[party] for party in due])
            pushed |= dict.fromkeys(due, time.monotonic())
            for reply in self._grid.pull_messages(list(ids)):
                party = ids[reply.metadata.reply_to_message_id]
                if party.did not in missing:
                    continue
                try:
                    on_reply(party, reply)
                except AccordError as error:
                    self._ignore(party, error)
            on_turn()
            time.sleep(_POLL_S)

    def _by_party(self, messages: Iterable[Any]) -> dict[PublicKey, Any]:
        """The messages by whom they are for."""
        parties = {node_id_of(party): party for party in map(PublicKey.from_did, self._history.state.agreements)}
        return {parties[message.metadata.dst_node_id]: message for message in messages}
