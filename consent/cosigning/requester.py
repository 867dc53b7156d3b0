"""The institution's side: show the consent log to its named witnesses, and hand their cosignatures to the registry.

A grant binds when enough of them have cosigned a checkpoint that covers it; which ones count, and how many, is the
registry's to say. What a witness has seen is asked, not assumed; one that is away or refuses is asked again later and
holds up nobody else.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from consent.cosigning.protocol import CosigningReply, CosigningRequest
from federation.coordinator.protocols import CONSENT_REPLY_BYTES_MAX
from federation.errors import AccordError, PeerError
from federation.rules.checkpoint import Cosignature, SignedCheckpoint, parse_cosignature_line, verify_cosignature
from federation.rules.keys import PublicKey
from federation.rules.study import read

_ATTEMPTS: Final = 3
_AT_ONCE_MAX: Final = 3

Ask = Callable[[PublicKey, bytes], bytes]
"""Asks a witness: (its key, request) -> answer. May raise any AccordError."""

logger = logging.getLogger(__name__)


class ConsentLog(Protocol):
    """What is needed of a registry (``consent.registry.Registry``)."""

    @property
    def institution(self) -> PublicKey:
        """Whose log it is."""
        ...

    def checkpoint(self, size: int | None = None) -> SignedCheckpoint:
        """The log at ``size`` (None: now), signed by the institution, without cosignatures."""
        ...

    def consistency(self, old_size: int, new_size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the log of ``new_size`` extends its first ``old_size`` entries."""
        ...

    def witnesses(self) -> tuple[frozenset[PublicKey], int]:
        """The named witnesses, and how many of them must cosign."""
        ...

    def add_cosignature(self, size: int, cosignature: Cosignature) -> object:
        """Take a verified cosignature of the checkpoint of ``size``."""
        ...


class Cosigning:
    """Keeps one institution's consent log cosigned.

    Args:
        log: the registry.
        ask: how a witness is reached.
    """

    def __init__(self, log: ConsentLog, ask: Ask) -> None:
        self._log = log
        self._ask = ask
        self._lock = threading.Lock()
        self._known: dict[PublicKey, int] = {}
        self._done: dict[PublicKey, int] = {}
        self.problems: dict[str, str] = {}

    def gather(self) -> bool:
        """Ask, all at once, every named witness that has not cosigned the newest checkpoint; whether all have.

        What goes wrong is kept in ``problems`` to be shown, and ends nothing.
        """
        with self._lock:
            witnesses, _ = self._log.witnesses()
            named = {witness.did for witness in witnesses}
            self.problems = {did: why for did, why in self.problems.items() if did in named}
            signed = self._log.checkpoint()
            size = signed.checkpoint.size
            asked = sorted((each for each in witnesses if self._done.get(each) != size), key=lambda each: each.did)
            if asked and size:
                with ThreadPoolExecutor(min(len(asked), _AT_ONCE_MAX), thread_name_prefix="cosigning") as pool:
                    list(pool.map(lambda witness: self._try(witness, signed), asked))
            return all(self._done.get(witness) == size for witness in witnesses)

    def _try(self, witness: PublicKey, signed: SignedCheckpoint) -> None:
        try:
            self._cosigned(witness, signed)
        except AccordError as error:
            if self.problems.get(witness.did) != error.message:
                logger.warning("witness %s has not cosigned the consent log: %s", witness.did, error.message)
            self.problems[witness.did] = error.message
        else:
            self.problems.pop(witness.did, None)

    def _cosigned(self, witness: PublicKey, signed: SignedCheckpoint) -> None:
        """Get one witness's cosignature under ``signed``.

        Raises:
            AccordError: it is away, refuses, or answers what does not verify.
        """
        size = signed.checkpoint.size
        for _ in range(_ATTEMPTS):
            request = self._request(signed, self._known.get(witness, 0))
            answer = self._ask(witness, request.to_payload())
            reply = read(CosigningReply, answer, max_bytes=CONSENT_REPLY_BYTES_MAX)
            if reply.cosignature is not None:
                cosignature = parse_cosignature_line(reply.cosignature, witness)
                verify_cosignature(signed.checkpoint, cosignature)
                self._log.add_cosignature(size, cosignature)
                self._known[witness] = self._done[witness] = size
                return
            if reply.size > size:
                raise PeerError(
                    f"The witness has cosigned {reply.size} batches of this consent log, which now has {size}.",
                    remedy="Was the registry restored from an old backup? Restore the newest one.",
                )
            self._known[witness] = reply.size
        raise PeerError("The witness answers without cosigning.", remedy="Look into its party.log.")

    def _request(self, signed: SignedCheckpoint, known: int) -> CosigningRequest:
        size = signed.checkpoint.size
        old: str | None = None
        proof: tuple[bytes, ...] = ()
        if 0 < known < size:
            old = self._log.checkpoint(known).to_bytes().decode("utf-8")
            proof = self._log.consistency(known, size)
        return CosigningRequest(
            institution=self._log.institution.did,
            checkpoint=signed.to_bytes().decode("utf-8"),
            old=old,
            proof=tuple(part.hex() for part in proof),
        )
