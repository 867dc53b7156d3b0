"""The witness's part in a failover: when it promises the lead to the standby, and that it keeps its word.

A promise is on disk before it is shown, and binds from then on, also after a restart: nothing of a lower term is
cosigned (``federation.rules.succession`` says what follows from it). It is given when this institution itself has not
heard the coordinator for the plan's time, or when so many other witnesses promised that one of them must be honest:
else a few promises could leave a study with neither coordinator nor standby. It is never taken back.
"""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from sqlalchemy import Engine

from clients.storage import recall, remember
from federation.coordinator.protocols import PromiseRequest
from federation.errors import PeerError, UnavailableError
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.state import StudyState
from federation.rules.succession import STANDBY_TERM, Promise, open_promise
from federation.storage.database import read, write


class PromiseStore(Protocol):
    """Where a witness keeps the one promise that it made in a study (port); the twin is :class:`MemoryPromises`."""

    def load(self) -> bytes | None:
        """The signed promise, or None while there is none."""
        ...

    def save(self, promise: bytes) -> None:
        """Keep it, durably, before it returns."""
        ...


class NodePromises:
    """In the node's database.

    Args:
        engine: the database.
        study: the study's id.
    """

    def __init__(self, engine: Engine, study: str) -> None:
        self._engine = engine
        self._key = f"promise/{study}"

    def load(self) -> bytes | None:
        """See :meth:`PromiseStore.load`."""
        with read(self._engine) as session:
            text = recall(session, self._key)
        return None if text is None else text.encode("utf-8")

    def save(self, promise: bytes) -> None:
        """See :meth:`PromiseStore.save`."""
        with write(self._engine) as session:
            remember(session, self._key, promise.decode("utf-8"))


class MemoryPromises:
    """The twin in memory."""

    def __init__(self) -> None:
        self._promise: bytes | None = None

    def load(self) -> bytes | None:
        """See :meth:`PromiseStore.load`."""
        return self._promise

    def save(self, promise: bytes) -> None:
        """See :meth:`PromiseStore.save`."""
        self._promise = promise


class Fence:
    """One witness's word in one study. Not safe with several threads: the witness's lock is held around it.

    Args:
        key: the witness's key.
        store: where the promise is kept.
        monotonic: seconds on a clock that never jumps; it measures the coordinator's silence.
    """

    def __init__(
        self, key: PrivateKey, store: PromiseStore, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._key = key
        self._store = store
        self._monotonic = monotonic
        self._heard_at = monotonic()
        self._made = store.load()

    @property
    def term(self) -> int:
        """The lowest term that this witness still cosigns."""
        return 0 if self._made is None else STANDBY_TERM

    def heard(self) -> None:
        """Note that the coordinator is there now."""
        self._heard_at = self._monotonic()

    def silent_s(self) -> float:
        """For how long the coordinator has not been heard by this process, in seconds."""
        return self._monotonic() - self._heard_at

    def check(self, state: StudyState) -> None:
        """Refuse to cosign in a term that was promised away.

        Raises:
            PeerError: this witness has promised a higher term than the log's.
        """
        if state.term < self.term:
            raise PeerError(
                "This witness has promised the lead to the standby, as the coordinator was silent for too long.",
                remedy="Stop this coordinator; the standby's log says what becomes of the study.",
            )

    def bind(self, state: StudyState, tree: tuple[int, bytes]) -> bytes:
        """The promise, made and kept now if there is none yet.

        Args:
            state: the replica.
            tree: size and root of the last tree that was cosigned.
        """
        if self._made is None:
            if state.plan.failover is None:
                raise PeerError("The plan names no standby.", remedy="Ask nothing of that kind in this study.")
            size, root = tree
            promise = Promise(
                study=state.study,
                term=STANDBY_TERM,
                standby=state.plan.failover.standby,
                size=size,
                root=root.hex(),
            )
            made = promise.sign(self._key).to_bytes()
            self._store.save(made)
            self._made = made
        return self._made

    def promise(self, request: PromiseRequest, state: StudyState, tree: tuple[int, bytes]) -> bytes:
        """Answer the standby; the caller has checked who asks.

        Raises:
            UnavailableError: the coordinator was heard too lately, as far as this witness and the promises shown know.
            PeerError: a promise that was shown is none.
        """
        failover = state.plan.failover
        if failover is None or request.study != state.study:
            raise PeerError("This witness follows another study.", remedy="Ask the study's own witnesses.")
        if self._made is None and self.silent_s() < failover.after_s and not self._vouched(request.promises, state):
            raise UnavailableError(
                f"The coordinator was heard here within the last {failover.after_s} s.",
                remedy="Ask again; nothing is promised.",
            )
        return self.bind(state, tree)

    def _vouched(self, shown: Iterable[str], state: StudyState) -> bool:
        """Whether so many other witnesses promised that at least one of them is honest."""
        if state.plan.failover is None:
            return False
        standby = state.plan.failover.standby
        dids = {open_promise(text.encode("utf-8"), study=state.study, standby=standby)[1] for text in shown}
        others = {witness.did for witness in state.witnesses if witness != self._key.public}
        faulty = max(0, (len(state.witnesses) - 1) // 3)  # before the start nobody is known, and nobody vouches
        return len(dids & others) > faulty


def is_standby(peer: PublicKey, state: StudyState) -> bool:
    """Whether ``peer`` is the standby that the plan names."""
    return state.plan.failover is not None and state.plan.failover.key == peer
