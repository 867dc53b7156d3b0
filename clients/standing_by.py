"""A node's lines to the others of its study: whoever leads it, its standby, and the nodes that pass models on.

To the standby that a plan names it opens its promise and its replica of the log, and keeps a line.
"""

from typing import Literal

from clients.fencing import Fence
from clients.witness import Witness
from federation.coordinator.protocols import PROMISE, PROMISE_BYTES_MAX
from federation.coordinator.replication import Replication
from federation.errors import UnavailableError
from federation.network.blobs import fetch_blob
from federation.network.exchange import Exchange
from federation.network.sharing import Gates, Sharing
from federation.rules.keys import PublicKey
from federation.rules.sharing import may_share, shared_models
from federation.rules.state import StudyState
from federation.rules.succession import signers_of
from federation.storage.blobs import BlobStore
from federation.storage.log import MerkleLog


def serve_standby(exchange: Exchange, witness: Witness, fence: Fence, replica: MerkleLog) -> None:
    """Keep a line to the plan's standby, and open the doors that it needs to take over; nothing if there is none."""
    coordinator, failover = witness.state.coordinator, witness.state.plan.failover
    if failover is None:
        return

    def promise(peer: PublicKey, payload: bytes) -> bytes:
        """A coordinator that is there at this moment was heard, however busy this process was."""
        if coordinator in exchange.connected():
            fence.heard()
        return witness.promise(peer, payload)

    exchange.serve(PROMISE, promise, max_bytes=PROMISE_BYTES_MAX)
    Replication(exchange, lambda: witness.state, replica, may=lambda peer: peer == failover.key).serve()
    exchange.keep_connected(failover.dial)


def fetch_from_leader(
    exchange: Exchange, state: StudyState, name: str, store: BlobStore, *, timeout_s: float, max_bytes: int
) -> bytes:
    """A blob from ``store``, else from whoever leads, else from the other of coordinator and standby, if it is there.

    Raises:
        UnavailableError: nobody of them gives it in time.
        PeerError: what came is not the blob.
    """
    leader, here = state.leader, exchange.connected()
    others = [peer for peer in signers_of(state.plan, state.coordinator) if peer != leader]
    for peer in [peer for peer in (leader, *others) if peer in here] or [leader]:
        try:
            return fetch_blob(exchange, peer, name, store, timeout_s=timeout_s, max_bytes=max_bytes)
        except UnavailableError as error:
            away = error
    raise away


def sharing_of(
    exchange: Exchange, witness: Witness, store: BlobStore, how: Literal["off", "fetch", "serve"]
) -> Sharing | None:
    """The node's part in passing models on, gated by the log as its replica knows it; None: it has none."""
    if how == "off":
        return None
    gates = Gates(
        party=lambda key: may_share(witness.state, key.did), named=lambda name: name in shared_models(witness.state)
    )
    state = witness.state
    return Sharing(exchange, state.coordinator, state.study, store, gates=gates, gives=how == "serve")
