"""When a grant binds: once k of the n named witnesses have cosigned a checkpoint that covers it.

A withdrawal or a refusal never waits for a witness, so nobody can delay one by withholding a signature; these rules are
about grants alone. Source: C2SP ``tlog-cosignature``; DESIGN.md, section 7. Signatures are verified by the caller
(``federation.rules.checkpoint.verify_cosignature``): what comes here counts.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from federation.errors import OperatorError
from federation.rules.checkpoint import Cosignature
from federation.rules.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Whose cosignatures count, and how many are needed (0: a grant binds from its receipt).

    Raises:
        OperatorError: on construction, if more are needed than are named, or fewer than none.
    """

    keys: frozenset[PublicKey] = frozenset()
    quorum: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.quorum <= len(self.keys):
            raise OperatorError(
                f"{self.quorum} of {len(self.keys)} witnesses cannot cosign.",
                remedy="Name at least as many witnesses as must cosign.",
            )


@dataclass(frozen=True, slots=True)
class Quorum:
    """The newest word of enough witnesses.

    Attributes:
        size: the largest log of which one checkpoint carries enough cosignatures; entries below it bind.
        at: the time that enough witnesses have reached (the k-th latest of their newest timestamps): fewer than k who
            lie cannot move it beyond what an honest one said.
    """

    size: int = 0
    at: datetime | None = None


def newest_quorum(cosignatures: Iterable[tuple[int, Cosignature]], witnesses: Witnesses) -> Quorum:
    """What verified (size, cosignature) pairs amount to; strangers do not count, and nobody twice for one size."""
    if not witnesses.quorum:
        return Quorum()
    signers: dict[int, set[PublicKey]] = {}
    latest: dict[PublicKey, int] = {}
    for size, item in cosignatures:
        if item.witness in witnesses.keys:
            signers.setdefault(size, set()).add(item.witness)
            latest[item.witness] = max(item.timestamp, latest.get(item.witness, 0))
    enough = [size for size, keys in signers.items() if len(keys) >= witnesses.quorum]
    if not enough:
        return Quorum()
    reached = sorted(latest.values(), reverse=True)[witnesses.quorum - 1]
    return Quorum(size=max(enough), at=datetime.fromtimestamp(reached, UTC))


def binds(index: int | None, quorum: Quorum, witnesses: Witnesses) -> bool:
    """Whether a grant binds whose batch is entry ``index`` of the log (None: not logged yet)."""
    return not witnesses.quorum or (index is not None and index < quorum.size)


def is_stale(quorum: Quorum, now: datetime, *, age_max: timedelta) -> bool:
    """Whether the newest word of enough witnesses is too old to rely on."""
    return quorum.at is None or now - quorum.at > age_max


def named(dids: Collection[str], quorum: int) -> Witnesses:
    """Witnesses by their dids.

    Raises:
        PeerError: one of them is not the did:key of an Ed25519 key.
        OperatorError: more are needed than are named.
    """
    return Witnesses(keys=frozenset(PublicKey.from_did(did) for did in dids), quorum=quorum)
