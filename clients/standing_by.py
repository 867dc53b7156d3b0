"""What a node opens to the standby that a study's plan names: its promise, its replica of the log, and a line to it."""

from clients.fencing import Fence
from clients.witness import Witness
from federation.coordinator.protocols import PROMISE, PROMISE_BYTES_MAX
from federation.coordinator.replication import Replication
from federation.network.exchange import Exchange
from federation.rules.keys import PublicKey
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
