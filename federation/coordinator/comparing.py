"""Leading the institutions through the comparison of their people, before the study starts.

The coordinator asks, carries and writes down; it can read nothing of what it carries (``rules.sealing``), and the
clusters follow from what institutions signed. Each step is asked of all who are there at once. Whoever has not answered
by the deadlines that the plan gives counts as having declined.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from federation.errors import AccordError, PeerError
from federation.network.exchange import Exchange
from federation.rules.comparing import groups_of, waits_for
from federation.rules.entries import OverlapClosed, OverlapCommitted, OverlapDeclined, OverlapReported
from federation.rules.keys import PublicKey
from federation.rules.state import StudyState
from federation.rules.study import read

from .history import StudyHistory
from .protocols import OVERLAP, OVERLAP_BYTES_MAX, OverlapReply, OverlapRequest

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 60.0
_AGAIN_S: Final = 2.0
_ENTRIES: Final[Mapping[str, type[OverlapCommitted | OverlapDeclined | OverlapReported]]] = {
    "committed": OverlapCommitted,
    "declined": OverlapDeclined,
    "reported": OverlapReported,
}


class Comparing:
    """The comparison of one study, until its clusters are formed.

    Args:
        history: the study's log.
        exchange: the coordinator's end of the network.
        tell: lets the institutions catch up on the log, which they check before each step.
    """

    def __init__(self, history: StudyHistory, exchange: Exchange, tell: Callable[[], object]) -> None:
        self._history = history
        self._exchange = exchange
        self._tell = tell
        self._sealed: dict[str, Mapping[str, str]] = {}
        self._asked_at: float | None = None
        self._told: tuple[int, bool] | None = None
        self.problems: dict[str, str] = {}

    def advance(self) -> bool:
        """Do what is due; False when there is only waiting left."""
        overlap = self._history.state.overlap
        stage = (len(self._history.state.agreements), overlap.closed)
        if self._told != stage:
            self._tell()
            self._told = stage
        if self._ask():
            return True
        state = self._history.state
        late = self._overdue(state, 2 if overlap.closed else 1)
        if waits_for(state) and not late:
            return False
        self._history.append(groups_of(state) if overlap.closed else OverlapClosed())
        self._asked_at = None
        return True

    def _overdue(self, state: StudyState, deadlines: int) -> bool:
        since = state.overlap.since
        limit = deadlines * timedelta(seconds=state.plan.rounds.deadline_s)
        return since is not None and self._history.now() >= since + limit

    def _ask(self) -> bool:
        """Ask whoever is there for what is due; whether anything new was written."""
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < _AGAIN_S:
            return False
        state, here = self._history.state, {peer.did for peer in self._exchange.connected()}
        size = state.size
        if state.overlap.closed:
            self._collect([did for did in state.overlap.commitments if did in here and did not in self._sealed])
            everybody = all(did in self._sealed or did in state.overlap.declined for did in state.overlap.commitments)
            if everybody or self._overdue(state, 2):
                self._each([did for did in waits_for(state) if did in here], self._report)
        else:
            self._each([did for did in waits_for(state) if did in here], self._commit)
        grown = self._history.state.size > size
        self._asked_at = None if grown else now
        return grown

    def _collect(self, parties: list[str]) -> None:
        """What each of ``parties`` sealed to the others."""
        for did, reply in self._each(parties, lambda did: self._request(did, "show")).items():
            self._sealed[did] = reply.sealed or {}

    def _commit(self, did: str) -> OverlapReply:
        return self._request(did, "commit")

    def _report(self, did: str) -> OverlapReply:
        sealed = {sender: shown[did] for sender, shown in self._sealed.items() if did in shown}
        return self._request(did, "report", sealed)

    def _request(self, did: str, step: str, sealed: Mapping[str, str] | None = None) -> OverlapReply:
        request = OverlapRequest.model_validate(
            {"study": self._history.state.study, "step": step, "sealed": dict(sealed or {})}
        )
        answer = self._exchange.request(
            PublicKey.from_did(did), OVERLAP, request.to_payload(), timeout_s=_TIMEOUT_S, max_bytes=OVERLAP_BYTES_MAX
        )
        return read(OverlapReply, answer, max_bytes=OVERLAP_BYTES_MAX)

    def _each(self, parties: list[str], ask: Callable[[str], OverlapReply]) -> dict[str, OverlapReply]:
        """Ask all at once; documents are written into the log in order of did, what goes wrong is kept to be shown."""
        replies: dict[str, OverlapReply] = {}

        def attempt(did: str) -> None:
            try:
                replies[did] = ask(did)
            except AccordError as error:
                self._note(did, error)

        if parties:
            with ThreadPoolExecutor(max_workers=len(parties), thread_name_prefix="overlap") as pool:
                list(pool.map(attempt, parties))
        for did in sorted(replies):
            if replies[did].kind != "shown":
                self._write(did, replies[did])
        return {did: reply for did, reply in replies.items() if reply.kind == "shown"}

    def _write(self, did: str, reply: OverlapReply) -> None:
        """Append the document that an institution answered with, if the log's rules take it."""
        try:
            kind = _ENTRIES.get(reply.kind)
            if kind is None or reply.envelope is None:
                raise PeerError("The answer holds no document.", remedy="Both sides need the same version of Accord.")
            self._history.append(kind(envelope=reply.envelope), party=PublicKey.from_did(did))
            self.problems.pop(did, None)
        except AccordError as error:
            self._note(did, error)

    def _note(self, did: str, error: AccordError) -> None:
        if self.problems.get(did) != error.message:
            logger.warning("comparing people with %s: %s", did, error.message)
        self.problems[did] = error.message
