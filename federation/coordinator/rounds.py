"""One round: open, collect commitments, collect updates, admit or refuse each with a reason, aggregate, close.

Every step goes into the log before the next begins, so a coordinator that dies and restarts goes on where the log
ends: an unclosed round is reopened and the nodes answer with what they stored. No step waits longer than the plan's
deadline.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from federation.errors import AccordError, PeerError
from federation.flower.grid import ExchangeGrid, node_id_of
from federation.flower.strategy import AccordStrategy
from federation.network.blobs import fetch_blob
from federation.network.exchange import Exchange
from federation.rules.admission import AdmissionError, check_arrays, check_update, parameter_count
from federation.rules.audit import Vector
from federation.rules.documents import CHUNK_BYTES_MAX, Commitment, Refusal, Update, open_signed
from federation.rules.entries import (
    CommitmentsClosed,
    ParticipationRefused,
    RoundClosed,
    RoundOpened,
    RoundReopened,
    UpdateAdmitted,
    UpdateCommitted,
    UpdateRefused,
)
from federation.rules.fixedpoint import pack, unpack
from federation.rules.instant import format_instant
from federation.rules.keys import PublicKey
from federation.rules.state import RoundState
from federation.storage.blobs import BlobStore

from .history import StudyHistory
from .valuing import Valuer

logger = logging.getLogger(__name__)

_RESEND_S = 2.0
_POLL_S = 0.02
_BLOB_TIMEOUT_S = 30.0

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
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._history = history
        self._exchange = exchange
        self._grid = grid
        self._strategy = strategy
        self._blobs = blobs
        self._valuer = valuer
        self._stop = stop
        self._on_turn = on_turn

    def open(self) -> None:
        """Append the next round's opening."""
        state = self._history.state
        if state.model is None:
            raise ValueError("the study has not started")
        now = self._history.now()
        body = RoundOpened(base_model=state.model, participants=state.active, deadline=self._deadline(now))
        self._history.append(body, round_number=len(state.closed) + 1)

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
        wait = timedelta(seconds=self._history.state.plan.rounds.deadline_s + 1)  # whole seconds are cut off
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

        def answered() -> set[str]:
            now = self._current()
            return set(now.commitments) | set(now.refusals)

        self._converse(
            messages,
            wanted=lambda: set(current.participants) - answered(),
            until=lambda: self._history.now() >= current.deadline,
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
        deadline = time.monotonic() + self._history.state.plan.rounds.deadline_s

        def undecided() -> set[str]:
            now = self._current()
            return set(now.commitments) - set(now.admitted) - set(now.rejected)

        self._converse(messages, wanted=undecided, until=lambda: time.monotonic() >= deadline, on_reply=self._admit)
        if self._stop.is_set():
            return
        for did in sorted(undecided()):
            self._refuse(PublicKey.from_did(did), AdmissionError("not-revealed", "no answer before the deadline"))

    def _admit(self, party: PublicKey, reply: Any) -> None:
        """Check a shown update, fetch its arrays, check them, and log the decision."""
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
            check_arrays(update, self._fetch(party, update), state.plan)
        except AdmissionError as error:
            self._refuse(party, error)
            return
        self._history.append(UpdateAdmitted(envelope=data.decode("utf-8")), round_number=current.number, party=party)

    def _fetch(self, party: PublicKey, update: Update) -> bytes:
        for name in update.chunks:
            if not self._blobs.has(name):
                fetch_blob(
                    self._exchange, party, name, self._blobs, timeout_s=_BLOB_TIMEOUT_S, max_bytes=CHUNK_BYTES_MAX
                )
        return b"".join(self._blobs.get(name) for name in update.chunks)

    def _refuse(self, party: PublicKey, error: AdmissionError) -> None:
        logger.warning("update of %s refused: %s", self._history.state.site(party.did), error.message)
        self._history.append(
            UpdateRefused(code=error.reason, message=error.message[:500]),
            round_number=self._current().number,
            party=party,
        )

    def _close(self, current: RoundState) -> None:
        state = self._history.state
        base = unpack(self._blobs.get(current.base_model), length=parameter_count(state.plan))
        quorate = len(current.admitted) >= state.plan.rounds.quorum
        counted = dict(current.admitted) if quorate else {}
        vectors: dict[str, Vector] = {
            did: check_arrays(update, b"".join(self._blobs.get(name) for name in update.chunks), state.plan)
            for did, update in sorted(counted.items())
        }
        result = self._strategy.aggregate_vectors(base, vectors, state.weights)
        body = RoundClosed(
            outcome="aggregated" if quorate else "no-quorum",
            updates={did: update.update for did, update in counted.items()},
            model=self._blobs.put(pack(result)),
            value_table=self._valuer.seal(state, base=base, updates=vectors),
        )
        self._history.append(body, round_number=current.number)

    def _converse(
        self,
        messages: Iterable[Any],
        *,
        wanted: Callable[[], set[str]],
        until: Callable[[], bool],
        on_reply: OnReply,
    ) -> None:
        """Push each message to its node, again when it comes back, and handle replies as they arrive.

        A node's misbehaviour is logged and ends nothing: the others go on, and at the deadline it has not answered.
        """
        parties = {node_id_of(party): party for party in map(PublicKey.from_did, self._history.state.agreements)}
        by_party = {parties[message.metadata.dst_node_id]: message for message in messages}
        ids = {message.metadata.message_id: party for party, message in by_party.items()}
        pushed: dict[PublicKey, float] = {}
        while not self._stop.is_set() and not until():
            missing = wanted()
            if not missing:
                return
            self._on_turn()
            there = self._exchange.connected()
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
                    logger.warning("answer of %s ignored: %s", self._history.state.site(party.did), error.message)
            time.sleep(_POLL_S)
