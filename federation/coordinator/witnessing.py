"""Collecting cosignatures: the coordinator shows each witness what it has not seen, and a checkpoint.

A witness replays the entries itself and signs only a tree that extends the last one it signed. What it has is asked,
not assumed: a witness that was away is brought up to date first.
"""

import logging
from concurrent.futures import ThreadPoolExecutor

from federation.errors import AccordError, PeerError
from federation.network.exchange import Exchange
from federation.rules.checkpoint import finality_quorum, parse_cosignature_line, verify_cosignature
from federation.rules.keys import PublicKey
from federation.rules.study import read

from .history import StudyHistory
from .protocols import COSIGN, COSIGN_ENTRIES_MAX, REPLY_BYTES_MAX, CosignReply, CosignRequest
from .replication import stop_if_superseded

logger = logging.getLogger(__name__)
_TIMEOUT_S = 20.0


class Witnessing:
    """Asks the witnesses of one study."""

    def __init__(self, history: StudyHistory, exchange: Exchange) -> None:
        self._history = history
        self._exchange = exchange
        self._sizes: dict[PublicKey, int] = {}
        self.problems: dict[str, str] = {}
        self._superseded = ""

    def gather(self) -> int:
        """Ask, all at once, every connected witness that has not cosigned the newest checkpoint; how many have.

        Raises:
            SupersededError: a witness proves that the standby leads the study.
        """
        signed = self._history.checkpoint()
        done = {cosignature.witness for cosignature in signed.cosignatures}
        there = self._exchange.connected()
        asked = [witness for witness in self._history.state.witnesses if witness in there and witness not in done]
        if asked:
            with ThreadPoolExecutor(max_workers=len(asked), thread_name_prefix="witness") as pool:
                list(pool.map(lambda witness: self._try(witness, signed.checkpoint.size), asked))
        if self._superseded:
            stop_if_superseded(self._history.state, self._superseded)
            self._superseded = ""
        return len(self._history.checkpoint().cosignatures)

    def _try(self, witness: PublicKey, size: int) -> None:
        """Ask one witness; what goes wrong is kept to be shown, and ends nothing."""
        try:
            self._ask(witness, size)
            self.problems.pop(witness.did, None)
        except AccordError as error:
            self.problems[witness.did] = error.message
            logger.warning("witness %s did not cosign: %s", witness.did, error.message)

    def final(self) -> bool:
        """Whether a quorum of the witnesses has cosigned the newest checkpoint."""
        signed = self._history.checkpoint()
        return len(signed.cosignatures) >= finality_quorum(len(self._history.state.witnesses))

    def _ask(self, witness: PublicKey, size: int) -> None:
        signed = self._history.checkpoint()
        if signed.checkpoint.size != size:
            return
        began = self._history.state.began
        # Where the standby took over, a witness may hold other entries: it is shown that place first.
        first = self._sizes.get(witness, began or 0)
        for _ in range(3 + size // COSIGN_ENTRIES_MAX):
            entries = [
                data.decode("utf-8") for data in self._history.log.entries(first, min(size, first + COSIGN_ENTRIES_MAX))
            ]
            complete = first + len(entries) == size
            request = CosignRequest(
                study=self._history.state.study,
                first=first,
                entries=tuple(entries),
                checkpoint=signed.to_bytes().decode("utf-8") if complete else None,
            )
            answer = self._exchange.request(
                witness, COSIGN, request.to_payload(), timeout_s=_TIMEOUT_S, max_bytes=REPLY_BYTES_MAX
            )
            reply = read(CosignReply, answer)
            if reply.superseded is not None:
                self._superseded = reply.superseded
                return
            shown = size if began is None else first + len(entries)
            self._sizes[witness] = min(reply.size, shown)
            if reply.cosignature is not None:
                cosignature = parse_cosignature_line(reply.cosignature, witness)
                verify_cosignature(signed.checkpoint, cosignature)
                self._history.add_cosignature(size, cosignature)
                return
            first = self._sizes[witness]
        raise PeerError("The witness answers without cosigning.", remedy="Look into its party.log.")
