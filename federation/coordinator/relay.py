"""The relay door: nodes listen nowhere, so what one node asks another travels through the coordinator.

It forwards one protocol, the cosigning of consent logs, and only between parties of its study; it holds nothing and can
forge nothing: the request carries the asking institution's signature over its own log, the answer the witness's. What
the coordinator could do is to lose both, which delays a grant; a withdrawal waits for nobody. Sizes, times, the number
of requests under way and their rate are bounded, so that no party keeps the coordinator from its rounds.
"""

import threading
from collections.abc import Callable
from typing import Final

from federation.errors import PeerError, UnavailableError
from federation.network.exchange import Exchange
from federation.rules.keys import PublicKey
from federation.rules.study import read

from .protocols import CONSENT_COSIGN, CONSENT_RELAY, CONSENT_REPLY_BYTES_MAX, RELAY_BYTES_MAX, RelayRequest
from .rate import RateBound

RELAY_S_MAX: Final = 8.0
UNDER_WAY_MAX: Final = 12
"""Of the host's 32 workers; a witness that hangs takes one of these places for at most ``RELAY_S_MAX``."""
PLACE_S_MAX: Final = 1.0
"""How long a request waits for a place."""
PER_S: Final = 5.0
BURST: Final = 60


class Relay:
    """The door of one study.

    Args:
        exchange: the coordinator's end of the network; its gate has let the asking party in.
        study: the study's id.
        party: whether a key is a party of the study.
        rate: how often one party may ask.
    """

    def __init__(
        self,
        exchange: Exchange,
        study: str,
        party: Callable[[PublicKey], bool],
        *,
        rate: RateBound | None = None,
    ) -> None:
        self._exchange = exchange
        self._study = study
        self._party = party
        self._rate = rate or RateBound(per_s=PER_S, burst=BURST)
        self._places = threading.BoundedSemaphore(UNDER_WAY_MAX)

    def serve(self) -> None:
        """Open the door."""
        self._exchange.serve(CONSENT_RELAY, self.handle, max_bytes=RELAY_BYTES_MAX)

    def handle(self, peer: PublicKey, payload: bytes) -> bytes:
        """Pass a request on, and the answer back.

        Raises:
            PeerError: malformed, another study, or not between two parties of this one.
            UnavailableError: the witness is not there, too many requests are under way, or this party asks too often.
            AccordError: what the witness answered.
        """
        self._rate.take(peer)
        request = read(RelayRequest, payload, max_bytes=RELAY_BYTES_MAX)
        witness = PublicKey.from_did(request.witness)
        if request.study != self._study or not (self._party(peer) and self._party(witness)) or witness == peer:
            raise PeerError(
                "The relay passes requests on only between two parties of its study.",
                remedy="Name witnesses that take part in the study (`accord consent witnesses`).",
            )
        if not self._places.acquire(timeout=PLACE_S_MAX):
            raise UnavailableError("Too many requests are under way.", remedy="Ask again in a few seconds.")
        try:
            return self._exchange.request(
                witness,
                CONSENT_COSIGN,
                request.request.encode("utf-8"),
                timeout_s=RELAY_S_MAX,
                max_bytes=CONSENT_REPLY_BYTES_MAX,
            )
        finally:
            self._places.release()


def ask_through(
    exchange: Exchange, coordinator: Callable[[], PublicKey], study: str, *, timeout_s: float
) -> Callable[[PublicKey, bytes], bytes]:
    """How a node asks another party of ``study``: (witness, request) -> answer, through the door of whoever leads."""

    def ask(witness: PublicKey, request: bytes) -> bytes:
        wrapped = RelayRequest(study=study, witness=witness.did, request=request.decode("utf-8"))
        return exchange.request(
            coordinator(), CONSENT_RELAY, wrapped.to_payload(), timeout_s=timeout_s, max_bytes=CONSENT_REPLY_BYTES_MAX
        )

    return ask
