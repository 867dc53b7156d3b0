"""The coordinator's side of a panel: it opens it, takes commitments, then scores, and waits for nobody for ever.

It decides nothing: what counts is in the log's rules (``federation.rules.panel_log``). A phase ends when everybody who
may answer has, or at its deadline; a coordinator that was away past a deadline gives everybody that time again.
"""

import time
from datetime import timedelta

from federation.errors import PeerError
from federation.rules.documents import Scores, ScoresCommitment, open_signed
from federation.rules.entries import PanelOpened, ScoresClosed, ScoresCommitted, ScoresShown
from federation.rules.instant import format_instant
from federation.rules.keys import PublicKey
from federation.rules.state import PanelState

from .history import StudyHistory


class PanelRunner:
    """Carries the panel of one study from its opening to the last scores."""

    def __init__(self, history: StudyHistory) -> None:
        self._history = history
        self._began = time.monotonic()

    def commit(self, peer: PublicKey, payload: bytes) -> bytes:
        """Log a member's commitment; the same one again is acknowledged.

        Raises:
            PeerError: signed by another key, a second one, or refused by the log's rules.
        """
        commitment, envelope = open_signed(ScoresCommitment, payload, signer=peer)
        panel = self._panel()
        if panel.commitments.get(peer.did) != commitment.commitment:
            self._history.append(ScoresCommitted(envelope=envelope.to_bytes().decode("utf-8")), party=peer)
        return b"{}"

    def show(self, peer: PublicKey, payload: bytes) -> bytes:
        """Log a member's scores; the same ones again are acknowledged.

        Raises:
            PeerError: signed by another key, other scores than it committed to, or refused by the log's rules.
        """
        scores, envelope = open_signed(Scores, payload, signer=peer)
        if self._panel().shown.get(peer.did) != scores:
            self._history.append(ScoresShown(envelope=envelope.to_bytes().decode("utf-8")), party=peer)
        return b"{}"

    def step(self) -> bool:
        """Open the panel, or end a phase that is over; whether anything was done."""
        panel = self._history.state.panel
        if panel is None:
            self._history.append(PanelOpened(members=self._history.state.active, deadline=self._deadline()))
            return True
        if panel.closed or not self._over(panel):
            return False
        self._history.append(ScoresClosed(deadline=self._deadline()))
        return True

    def done(self) -> bool:
        """Whether the study can be settled: everybody has shown what it committed to, or had the time to."""
        panel = self._history.state.panel
        return panel is not None and panel.closed and self._over(panel)

    def _over(self, panel: PanelState) -> bool:
        if not panel.awaited:
            return True
        waited = time.monotonic() - self._began >= self._history.state.rounds.deadline_s
        return waited and self._history.now() >= panel.deadline

    def _deadline(self) -> str:
        wait = timedelta(seconds=self._history.state.rounds.deadline_s + 1)  # whole seconds are cut off
        return format_instant(self._history.now() + wait)

    def _panel(self) -> PanelState:
        panel = self._history.state.panel
        if panel is None:
            raise PeerError("No panel is open in this study.", remedy="Follow the study's log.")
        return panel
