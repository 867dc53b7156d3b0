"""The parsers of a failover: what a standby, its witnesses and a coordinator that comes back read from each other."""

from collections.abc import Callable
from functools import partial
from typing import Any

from standby_in_memory import KEY
from terms_by_hand import BLOB, COORDINATOR, KEYS, NOW, PLAN, TermLog

from clients.fencing import Fence, MemoryPromises
from clients.witness import Witness
from federation.coordinator.protocols import FollowReply, FollowRequest, PromiseRequest
from federation.coordinator.replication import Replication
from federation.errors import PeerError, UnavailableError
from federation.network.memory import MemoryNetwork
from federation.rules.canonical import canonical_bytes, parse
from federation.rules.entries import ENTRY_TYPE
from federation.rules.envelope import open_envelope, sign
from federation.rules.merkle import leaf_hash
from federation.rules.replay import replay
from federation.rules.study import read
from federation.rules.succession import Promise, open_promise, proves_takeover
from federation.storage.evidence import MemoryEvidence
from federation.storage.log import MemoryLog

Row = tuple[Callable[[bytes], Any], tuple[bytes, ...], tuple[type[Exception], ...]]


def standby_parsers() -> dict[str, Row]:
    """Name -> what it reads, documents that it takes, what it may raise."""
    log = TermLog().start().go_on(2)
    taken = log.fork(len(log.entries), branch=0).take_over()
    before, leaves = log.state, [leaf_hash(data) for data in log.entries]
    entry = open_envelope(taken.entries[-1], payload_type=ENTRY_TYPE).payload
    promise = log.promise("ash").encode()
    shown = PromiseRequest(study=PLAN.study_id, promises=(log.promise("birch"), log.promise("cedar"))).to_payload()
    asked = FollowRequest(study=PLAN.study_id, first=3).to_payload()
    store = MemoryLog("fuzzed")
    for place, data in enumerate(log.entries):
        store.append(str(place), data)
    door = Replication(MemoryNetwork().exchange(COORDINATOR), lambda: before, store, may=lambda _peer: True)
    told = door.handle(KEY.public, asked)
    opened = partial(open_promise, study=PLAN.study_id, standby=KEY.public.did)

    watching = Witness(
        plan=PLAN,
        plan_blob=BLOB,
        coordinator=COORDINATOR.public,
        key=KEYS["ash"],
        log=store,
        blobs=lambda _name: b"",
        evidence=MemoryEvidence(),
        clock=lambda: NOW,
        fence=Fence(KEYS["ash"], MemoryPromises()),
    )
    peer = (PeerError,)
    return {
        "follow request": (partial(read, FollowRequest), (asked,), peer),
        "follow reply": (partial(read, FollowReply), (told,), peer),
        "promise request": (partial(read, PromiseRequest), (shown,), peer),
        "promise": (opened, (promise,), peer),
        "promise, signed anew": (
            lambda data: opened(sign(_settled(data), Promise.payload_type(), KEYS["ash"]).to_bytes()),
            (open_envelope(promise, payload_type=Promise.payload_type()).payload,),
            peer,
        ),
        "term-began, signed anew": (
            lambda data: replay(before, [sign(_settled(data), ENTRY_TYPE, KEY).to_bytes()], before=leaves),
            (entry,),
            peer,
        ),
        "proof of a takeover": (partial(proves_takeover, before), (taken.entries[-1],), peer),
        "door: follow": (lambda data: door.handle(KEY.public, data), (asked,), peer),
        "door: promise": (lambda data: watching.promise(KEY.public, data), (shown,), (PeerError, UnavailableError)),
    }


def _settled(data: bytes) -> bytes:
    """The canonical form; bytes without one stay as they are."""
    try:
        return canonical_bytes(parse(data))
    except PeerError:
        return data
