"""Every parser of bytes that come from outside: what it reads, real documents to begin with, and what it may raise.

The documents are the traffic and the stores of a whole study in memory, and the published consent vectors. Where a
signature would end every inquiry at the door, the bytes are signed again by the right key, so that what lies behind is
reached too: a peer that signs what it likes is exactly the one to fear.

``tests/fuzz/coverage_guided.py`` searches long (``make fuzz``), ``test_parsers.py`` briefly.
"""

import base64
import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import trio
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from libp2p.io.exceptions import ConnectionClosedError
from sealed_market import COORDINATOR, DIDS, KEYS, Played, draft
from standby_parsers import standby_parsers
from study_in_memory import SALT, InMemoryStudy
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from clients.apps.project import described
from clients.data.dataset import read_file
from clients.flower.sandbox import checked_answer, reply_parts
from consent.cli.instructions import read_decisions
from consent.cosigning import COSIGNING_TABLES
from consent.cosigning.protocol import CosigningReply, CosigningRequest
from consent.cosigning.witness import ConsentLogWitness
from consent.rules.approval import APPROVAL_TYPE, Approval, open_approval
from consent.rules.binding import Witnesses, is_stale, newest_quorum
from consent.rules.commitment import open_batch
from consent.rules.history import open_file
from consent.rules.proof import add_proof
from consent.rules.receipt import open_note, open_receipt
from consent.rules.record import open_record
from consent.rules.wire import CONTEXT
from federation.coordinator.history import StudyHistory
from federation.coordinator.market import call_from_toml
from federation.coordinator.protocols import (
    AGREEMENT,
    COSIGN,
    JOIN,
    OVERLAP,
    REVOCATION,
    CosignReply,
    CosignRequest,
    JoinRequest,
    OverlapReply,
    OverlapRequest,
    RelayRequest,
)
from federation.coordinator.rate import RateBound
from federation.coordinator.relay import Relay
from federation.coordinator.sources import Sources
from federation.coordinator.submissions import Submissions
from federation.errors import AccordError, ConsentError, OperatorError, PeerError, UnavailableError
from federation.export.manifest import MANIFEST_TYPE, ExportedFile, Manifest, sign_manifest
from federation.flower import messages
from federation.flower.arrays import check_arrays
from federation.identity import load_key
from federation.learning.evaluation import committed_utility
from federation.network.addresses import target_of
from federation.network.answers import encode_error, open_answer
from federation.network.blobs import BLOB
from federation.network.exchange import peer_of
from federation.network.frames import FrameReader, pieces
from federation.network.host import Libp2pHost
from federation.network.memory import Delivery, Fate
from federation.network.pieces import (
    Lead,
    PieceRequest,
    SourcesReply,
    SourcesRequest,
    open_piece,
    piece_answer,
)
from federation.network.probe import PROBE
from federation.network.sharing import Gates, Sharing
from federation.network.transport import listen_address
from federation.network.tunnel import _head, destination, proxy_of, status_of
from federation.network.websocket import WebSocketStream
from federation.rules import events, merkle
from federation.rules.accounting import scores_event
from federation.rules.admission import check_update, consent_origin
from federation.rules.ballots import Change, Proposal, Vote
from federation.rules.byte_planes import pack_planes, unpack_planes
from federation.rules.canonical import canonical_bytes, parse, parse_canonical, sha256_hex
from federation.rules.challenge import make_challenge, verify_challenge
from federation.rules.checkpoint import (
    Checkpoint,
    cosign,
    cosignature_line,
    key_id,
    open_checkpoint,
    parse_cosignature_line,
    sign_checkpoint,
)
from federation.rules.compression import pack_quantised, pack_sparse, unpack_quantised, unpack_sparse
from federation.rules.documents import (
    Commitment,
    OverlapCommitment,
    OverlapRefusal,
    OverlapReport,
    Refusal,
    Revocation,
    Scores,
    ScoresCommitment,
    Signed,
    Update,
    ValueTable,
    open_signed,
)
from federation.rules.entries import (
    ENTRY_TYPE,
    ChangeProposed,
    Entry,
    SlashAppealed,
    StakeBurned,
    StakeReleased,
    StakeSlashed,
    StudyPublished,
    UpdateAdmitted,
    UpdateCommitted,
    VoteCast,
    entry_id,
    make_entry,
    open_entry,
)
from federation.rules.envelope import open_envelope, sign
from federation.rules.equivocation import two_leaves, two_roots, verify_evidence
from federation.rules.fixedpoint import pack, unpack
from federation.rules.instant import parse_instant
from federation.rules.invitation import PREFIX, Invitation, parse_invitation
from federation.rules.keys import PrivateKey, PublicKey
from federation.rules.offers import (
    MarketCall,
    MarketOutcome,
    RevealedPrice,
    SealedList,
    SealedPrice,
    kind_of,
    open_call,
    open_list,
    open_offer,
    open_outcome,
    open_price,
)
from federation.rules.overlap import unpack_sketch
from federation.rules.panel_log import check_scores
from federation.rules.pledges import Accusation, FalseUtility, Opening, Pledge, SplitView, TwoStudies
from federation.rules.replay import apply, begin, replay
from federation.rules.sealing import open_sealed, seal, sealing_key
from federation.rules.state import StudyState
from federation.rules.study import AGREEMENT_TYPE, PLAN_TYPE, open_agreement, open_plan, plan_from_toml, read
from federation.rules.terms import Panel, Valuation
from federation.rules.validation import read_validation
from federation.rules.value_sample import ValueSample, draw, redraw, seed_of
from federation.settings import PartySettings, load_settings
from federation.settlement.accounts import read_accounts
from federation.settlement.addresses import checksummed
from federation.storage.database import memory_database
from federation.storage.evidence import MemoryEvidence
from federation.storage.log import MemoryLog

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors" / "consent" / "must_pass"
NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)
"""The day of the vectors."""
STRANGER = PrivateKey(b"s" * 32)
EASY = RateBound(per_s=1e9, burst=10**9)
WINDOWS = {"challenge_s": 10_000, "appeal_s": 10_000, "unbonding_s": 20_000}
STAKE = {"coordinator_microcredits": 500, "institution_microcredits": 300, **WINDOWS}
VOTING = {"open_s": 10_000}
_SIZE = 8
_HASH = 32

Read = Callable[[bytes], Any]


@dataclass(frozen=True)
class Parser:
    """One way in.

    ``seeds`` are documents that it takes; whatever else it is given, it may raise ``raises`` and nothing more.
    """

    read: Read
    seeds: tuple[bytes, ...]
    raises: tuple[type[Exception], ...] = (PeerError,)


@contextlib.contextmanager
def parsers(folder: Path) -> Iterator[dict[str, Parser]]:
    """Play a study and name every parser; those that look into stores do so as long as this is open."""
    traffic: dict[str, list[bytes]] = {}

    def courier(delivery: Delivery) -> Fate:
        seen = traffic.setdefault(delivery.protocol, [])
        if delivery.payload not in seen:
            seen.append(delivery.payload)
        return Fate.DELIVERED

    with InMemoryStudy(folder, rounds={"count": 2}, overlap={}, courier=courier, stake=STAKE, voting=VOTING) as study:
        study.run(between=lambda closed: study["cedar"].revoke() if closed == 1 else None)
        for institution in study.institutions.values():
            if institution._runtime is not None:
                institution._runtime.close()
        study.network.courier = None
        yield {
            **_transport(study),
            **_documents(study),
            **_logs(study),
            **_challenges(study),
            **_stakes(study),
            **_doors(study, traffic),
            **_flower(traffic),
            **_consents(study),
            **_files(study, folder),
            **_market(),
            **{name: Parser(*row) for name, row in standby_parsers().items()},
        }


def _text(call: Callable[[str], Any]) -> Read:
    return lambda data: call(data.decode("utf-8", "replace"))


def _resigned(kind: str, key: PrivateKey, opened: Read) -> Read:
    """``opened`` on the bytes in canonical form where they have one, in an envelope of that type by ``key``."""
    return lambda data: opened(sign(_settled(data), kind, key).to_bytes())


def _settled(data: bytes) -> bytes:
    """The canonical form; bytes without one stay as they are."""
    try:
        return canonical_bytes(parse(data))
    except PeerError:
        return data


def _transport(study: InMemoryStudy) -> dict[str, Parser]:
    """What comes before any document: frames, answers, JSON, addresses, a proxy's words."""
    peer = study["ash"].key.public
    entries = study.log.entries()
    answers = [b"\x00" + entries[0], encode_error(ConsentError("no\n", remedy="é"))]
    invitation = Invitation(
        address=f"/dns4/a.example/tcp/4001/p2p/{peer.peer_id}", study="s", site="ash", token="0" * 64
    )
    addresses = [
        f"/ip4/127.0.0.1/tcp/4001/p2p/{peer.peer_id}".encode(),
        f"/ip6/::1/tcp/443/p2p/{peer.peer_id}".encode(),
        invitation.address.encode(),
        f"/dns4/a.example/tcp/443/wss/p2p/{peer.peer_id}".encode(),
    ]
    heads = [b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nrest", b"HTTP/1.0 407 Proxy Authentication Required\r\n\r\n"]
    return {
        "frame": Parser(_frame, (b"\x03" + b"".join(pieces(b"payload")), bytes(9)), (PeerError, UnavailableError)),
        "answer": Parser(partial(open_answer, peer=peer, max_bytes=4096), tuple(answers[:1]), (AccordError,)),
        "refusal in an answer": Parser(partial(_answered, peer), tuple(answers[1:])),
        "json": Parser(_json, (entries[0], b'{"a":[1,-2,"\\u00e9"],"b":{"c":null}}')),
        "canonical json": Parser(parse_canonical, (entries[0],)),
        "envelope": Parser(partial(open_envelope, payload_type=AGREEMENT_TYPE), (_agreement(study),)),
        "did": Parser(_text(PublicKey.from_did), (peer.did.encode(),)),
        "peer id": Parser(_text(PublicKey.from_peer_id), (peer.peer_id.encode(),)),
        "instant": Parser(_text(parse_instant), (b"2026-11-22T00:10:00Z",)),
        "invitation": Parser(_text(parse_invitation), (str(invitation).encode(),), (OperatorError,)),
        "invitation's JSON": Parser(
            lambda data: parse_invitation(PREFIX + base64.urlsafe_b64encode(_settled(data)).decode()),
            (invitation.to_payload(),),
            (OperatorError,),
        ),
        "address": Parser(_text(_address), tuple(addresses), (OperatorError,)),
        "listen address": Parser(_text(listen_address), (b"/ip4/0.0.0.0/tcp/4001", b"/ip6/::/tcp/0"), (OperatorError,)),
        "proxy's answer": Parser(_proxy_answer, tuple(heads), ()),
        "websocket": Parser(_websocket, (b"\x82\x84\0\0\0\0data\x89\x80\0\0\0\0",), (ConnectionClosedError,)),
        "proxy's address": Parser(_text(proxy_of), (b"http://ward:s%20x@proxy.example:3128/",), (OperatorError,)),
    }


def _frame(data: bytes) -> bytes:
    """The frame, in pieces of the sizes that the first byte draws; what is announced is never more than what comes."""
    reader, stream, most = FrameReader(4096), io.BytesIO(data[1:]), 1 + data[0] % 64 if data else 1
    while reader.wanted:
        reader.feed(stream.read(min(most, reader.wanted)))
    assert len(reader.begun) <= len(data)
    return reader.payload()


def _answered(peer: PublicKey, data: bytes) -> str:
    """The words of a refusal, which end on a terminal."""
    said = ""
    try:
        open_answer(data, peer=peer, max_bytes=64)
    except AccordError as error:
        said = error.message + error.remedy
    assert said.isprintable()
    return said


def _json(data: bytes) -> bytes:
    """What is accepted has one canonical form."""
    canonical = canonical_bytes(parse(data))
    assert canonical_bytes(parse_canonical(canonical)) == canonical
    return canonical


def _address(text: str) -> Any:
    """As a node and the doctor take it: whom, and where."""
    peer_of(text)
    found = target_of(text)
    assert found is None or 0 <= found.port < 2**16
    destination(text)
    return Libp2pHost._other(SimpleNamespace(_public=STRANGER.public), text)  # type: ignore[arg-type]  # its key alone


class _Bytes:
    """A stream that has what it was given, and then ends."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    async def receive_some(self, count: int) -> bytes:
        return self._data.read(min(count, 7))


def _proxy_answer(data: bytes) -> tuple[int | None, bytes]:
    try:
        _head(_Bytes(data)).send(None)  # type: ignore[arg-type]  # nothing in it ever waits
    except StopIteration as done:
        head, rest = done.value
        return status_of(head), rest
    raise AssertionError("it waits")


class _Line(_Bytes):
    """The same, to which one may write."""

    async def send_all(self, data: bytes) -> None:
        assert data


def _websocket(data: bytes) -> bytes:
    """What comes inside an open WebSocket; it is never more than came."""
    protocol = WSConnection(ConnectionType.SERVER)
    protocol.receive_data(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert isinstance(next(iter(protocol.events())), Request)
    protocol.send(AcceptConnection())
    stream = WebSocketStream(_Line(data), protocol)  # type: ignore[arg-type]  # as far as it is used

    async def read() -> bytes:
        heard = b""
        while piece := await stream.read(4096):
            heard += piece
        return heard

    heard = trio.run(read)
    assert len(heard) <= len(data)
    return heard


def _agreement(study: InMemoryStudy) -> bytes:
    agreed: bytes = study["ash"].parts().membership.agreement
    return agreed


def _documents(study: InMemoryStudy) -> dict[str, Parser]:
    """What institutions and coordinators sign, as received and signed anew."""
    key, ash, plan = study.key, study["ash"].key, study.plan
    bodies = [entry.body for entry in study.entries()]
    commitments = [body.envelope.encode() for body in bodies if isinstance(body, UpdateCommitted)]
    updates = [body.envelope.encode() for body in bodies if isinstance(body, UpdateAdmitted)]
    update, _ = open_signed(Update, updates[0])
    table = study.tables()[0]
    agreement, _ = open_agreement(_agreement(study))
    refusal = Refusal(study=plan.study_id, round=1, code="budget", message="nothing is left")
    revocation = Revocation(study=plan.study_id, plan_hash=plan.plan_hash, site="ash", signed_at="2026-11-22T00:10:00Z")
    commitment, _ = open_signed(Commitment, commitments[0])
    exported = Manifest(
        study=plan.study_id, log_size=3, log_root="0" * 64, files={"plan.json": ExportedFile(sha256="0" * 64, bytes=3)}
    )
    signed_manifest = sign_manifest(exported.files, study=plan.study_id, log_size=3, log_root=bytes(32), key=key)
    vector = np.arange(-2, 2, dtype=np.int64)

    terms = plan.valuation.model_copy(update={"panel": Panel(held_out="00", clip=Decimal(1), quorum=3)})
    state = replace(study.state, plan=plan.model_copy(update={"valuation": terms}))
    players = tuple(sorted(state.weights))
    scores = Scores(
        study=state.study,
        model=state.model or "",
        players=players,
        values=tuple(range(len(players))),
        event=scores_event(state.plan),
        nonce="0" * 64,
        code_hash=plan.code_approved[0],
    )

    def scored(data: bytes) -> Any:
        """As the log's rules check scores."""
        shown, _ = open_signed(Scores, data)
        return check_scores(state, shown)

    def signed(kind: type[Any], document: Any) -> Parser:
        return Parser(_resigned(kind.payload_type(), ash, partial(open_signed, kind)), (document.to_payload(),))

    def admitted(data: bytes) -> Any:
        """As the coordinator checks an update, with the commitment that belongs to it."""
        try:
            shown, _ = open_signed(Update, data)
            commitment = shown.commitment(ash.public).commitment
        except PeerError:
            commitment = "0" * 64
        return check_update(
            data,
            plan=plan,
            party=ash.public,
            round_number=1,
            base_model=update.base_model,
            commitment=commitment,
            consent_log=None,
        )

    return {
        "plan": Parser(_resigned(PLAN_TYPE, key, open_plan), (plan.to_payload(),)),
        "agreement": Parser(_resigned(AGREEMENT_TYPE, ash, open_agreement), (agreement.to_payload(),)),
        "commitment": signed(Commitment, commitment),
        "refusal": signed(Refusal, refusal),
        "revocation": signed(Revocation, revocation),
        "update": signed(Update, update),
        "scores": signed(Scores, scores),
        "scores, commitment": signed(ScoresCommitment, scores.commitment(ash.public)),
        "scores, admission": Parser(
            _resigned(Scores.payload_type(), ash, scored),
            (scores.to_payload(),),
        ),
        "update, admission": Parser(
            _resigned(Update.payload_type(), ash, admitted),
            tuple(open_envelope(data, payload_type=Update.payload_type()).payload for data in _of(updates, ash)[:1]),
        ),
        **_compared(study, signed),
        "value table": Parser(partial(read, ValueTable), (table.to_payload(),)),
        "value table, sampled": Parser(_redrawn, (_sampled_table().to_payload(),)),
        "vector": Parser(partial(unpack, length=4), (pack(vector),)),
        "quantised vector": Parser(partial(unpack_quantised, length=4), (pack_quantised(vector),)),
        "sparse vector": Parser(partial(unpack_sparse, length=4, count=4), (pack_sparse(vector, 4),)),
        "short vector": Parser(partial(unpack_planes, length=4), (pack_planes(vector),)),
        "privacy event": Parser(_event, (events.event_bytes(update.event),)),
        "manifest": Parser(_resigned(MANIFEST_TYPE, key, _manifest), (exported.to_payload(),)),
        "signed manifest": Parser(_manifest, (signed_manifest,)),
    }


def _compared(study: InMemoryStudy, signed: Callable[[type[Any], Any], Parser]) -> dict[str, Parser]:
    """What comes before the first round of a study that compares people."""
    ash, birch = study["ash"], study["birch"]
    names = {"study": study.plan.study_id, "sender": birch.did, "recipient": ash.did}
    secrets = {"secret": bytes([1]) * 32, "by": sealing_key(bytes([2]) * 32)}
    sealed = seal(b"a sketch", secret=bytes([2]) * 32, to=sealing_key(bytes([1]) * 32), **names)
    overlap = study.state.overlap
    return {
        "overlap commitment": signed(OverlapCommitment, overlap.commitments[ash.did]),
        "overlap report": signed(OverlapReport, overlap.reports[ash.did]),
        "overlap refusal": signed(
            OverlapRefusal, OverlapRefusal(study=study.plan.study_id, code="budget", message="nothing is left")
        ),
        "sketch": Parser(partial(unpack_sketch, buckets=16), (bytes(64),)),
        "sealed message": Parser(lambda data: open_sealed(data, **secrets, **names), (sealed,)),
    }


def _of(envelopes: list[bytes], key: PrivateKey) -> list[bytes]:
    return [data for data in envelopes if key.public.did.encode() in data]


def _event(data: bytes) -> Any:
    event = events.parse_event(_settled(data))
    return events.mechanisms(event), events.event_bytes(event)


def _manifest(data: bytes) -> Manifest:
    envelope = open_envelope(data, payload_type=MANIFEST_TYPE)
    return read(Manifest, envelope.payload)


def _logs(study: InMemoryStudy) -> dict[str, Parser]:
    """Entries and their fold, checkpoints, proofs, evidence."""
    key, plan = study.key, study.plan
    early: dict[str, StudyState] = {}
    late: dict[str, StudyState] = {}
    state = begin(plan, plan_blob=sha256_hex(study.envelope), coordinator=key.public)
    for entry in study.entries():
        early.setdefault(entry.body.kind, state)
        late[entry.body.kind] = state
        state = apply(state, entry)
    lasts = {entry.body.kind: entry for entry in study.entries()}
    firsts = {entry.body.kind: entry for entry in reversed(study.entries())}

    def folded(before: dict[str, StudyState], data: bytes) -> StudyState:
        """A coordinator's entry under its right id, where one of its kind stood in the log."""
        shown = read(Entry, _settled(data))
        name = entry_id(shown.body, study=shown.study, term=shown.term, round_number=shown.round, party=shown.party)
        return apply(before.get(shown.body.kind, state), shown.model_copy(update={"id": name}))

    note = study.history.checkpoint().to_bytes()
    witnesses = study.state.witnesses
    first = study["ash"].key.public
    head = study.history.checkpoint().checkpoint
    line = cosignature_line(cosign(head, study["ash"].key, timestamp=1_800_000_000))
    other = sign_checkpoint(Checkpoint(head.origin, head.size, bytes(32)), key)
    mine = study.history.checkpoint()
    leaves = list(study.log.leaf_hashes())
    changed = [*leaves[:3], bytes(32), *leaves[4:]]
    forked = sign_checkpoint(Checkpoint(head.origin, head.size, merkle.root(changed)), key)
    cases = (two_roots(mine, other), two_leaves(mine, leaves, forked, changed))
    evidence = [case.to_bytes() for case in cases if case is not None]
    return {
        "entry": Parser(partial(open_entry, signer=key.public), (study.log.entry(0), study.log.entry(5))),
        "entry, folded": Parser(partial(folded, early), tuple(entry.to_payload() for entry in firsts.values())),
        "entry, folded late": Parser(partial(folded, late), tuple(entry.to_payload() for entry in lasts.values())),
        "checkpoint": Parser(
            partial(open_checkpoint, origin=plan.origin, signer=key.public, witnesses=witnesses), (note,)
        ),
        "checkpoint, signed anew": Parser(
            lambda data: open_checkpoint(_noted(data, key), origin=plan.origin, signer=key.public, witnesses=()),
            (note,),
        ),
        "cosignature": Parser(_text(partial(parse_cosignature_line, witness=first)), (line.encode(),)),
        "cosignature's time": Parser(partial(_quorum, study), ((1_800_000_000).to_bytes(8, "big") + bytes(8),)),
        "inclusion proof": Parser(
            _inclusion, (_packed(3, len(leaves), leaves[3], study.log.root(), *merkle.inclusion_proof(leaves, 3)),)
        ),
        "consistency proof": Parser(
            _consistency,
            (
                _packed(
                    5, len(leaves), merkle.root(leaves[:5]), merkle.root(leaves), *merkle.consistency_proof(leaves, 5)
                ),
            ),
        ),
        "evidence": Parser(verify_evidence, tuple(evidence)),
        "evidence, signed anew": Parser(partial(_evidence, key), tuple(evidence)),
    }


SAMPLED = Valuation.model_validate(
    {"method": "shapley", "utility": "negative-log-loss", "sampling": {"precision": "0.01", "coalitions_max": 900}}
)


def _sampled_table() -> ValueTable:
    seed = seed_of("study", 1, {})
    sample = draw(15, lambda masks: [mask.bit_count() << 30 for mask in masks], SAMPLED, seed)
    players = tuple(f"p{place:02}" for place in range(15))
    return ValueTable(study="study", round=1, players=players, utilities=sample.utilities, salt=seed, seed=seed)


def _redrawn(data: bytes) -> ValueSample:
    return redraw(read(ValueTable, data), SAMPLED)


def _challenges(study: InMemoryStudy) -> dict[str, Parser]:
    """A challenge as a stranger gets it, and one whose coordinator signs any start and any end of the round."""
    key, bodies, entries = study.key, study.kinds(), study.log.entries()
    done = study.state.closed[0]
    places = [bodies.index(kind) for kind in ("study-published", "study-started", "round-opened", "round-closed")]
    parts: dict[str, Any] = {
        "plan": study.envelope,
        "table": study.blobs.get(done.value_table),
        "validation": (SALT, study.validation),
        "base": study.blobs.get(done.base_model),
        "updates": {did: b"".join(map(study.blobs.get, update.chunks)) for did, update in done.admitted.items()},
    }
    opened = partial(verify_challenge, coordinator=key.public, utility=committed_utility)
    real = make_challenge(signed=study.history.checkpoint(), entries=entries, places=(*places,), **parts).to_bytes()
    signed = [open_envelope(entries[place], payload_type=ENTRY_TYPE).payload for place in places]

    def anew(data: bytes) -> Any:
        """The challenge of a log of four entries, whatever they say."""
        document = parse(data)
        shown = document if isinstance(document, list) else []
        payloads = [canonical_bytes(item) for item in (*shown, *({},) * 4)][:4]
        log = [sign(payload, ENTRY_TYPE, key).to_bytes() for payload in payloads]
        head = Checkpoint(study.plan.origin, 4, merkle.root([merkle.leaf_hash(entry) for entry in log]))
        made = make_challenge(signed=sign_checkpoint(head, key), entries=log, places=(0, 1, 2, 3), **parts)
        return opened(made.to_bytes())

    return {
        "challenge": Parser(opened, (real,)),
        "challenge, signed anew": Parser(anew, (b"[" + b",".join(signed) + b"]",)),
    }


def _stakes(study: InMemoryStudy) -> dict[str, Parser]:
    """What parties sign of their own accord, and what the log holds of it: cases, answers, the end of stakes, votes."""
    key, ash, plan = study.key, study["ash"].key, study.plan
    at = study.kinds().index("round-opened")
    start = begin(plan, plan_blob=sha256_hex(study.envelope), coordinator=key.public)
    begun = replay(start, study.log.entries(0, at + 1))
    case, answer = _two_studies(study)
    false = FalseUtility(round=1, coalition=(), proof="0" * 64)
    change = Change(parameter="deadline_s", value=600)
    proposal = Proposal(study=plan.study_id, plan_hash=plan.plan_hash, change=change, signed_at="now")
    proposed = ChangeProposed(envelope=proposal.sign(ash).to_bytes().decode())
    accusation = Accusation(study=plan.study_id, accused=key.public.did, case=case, signed_at="now")
    pledge, _ = open_signed(Pledge, study["ash"].pledged(), signer=ash.public)

    def entered(state: StudyState, body: Any, party: PublicKey, hours: float = 0) -> tuple[StudyState, Entry]:
        last = state.last_time
        assert last is not None
        entry = make_entry(body, study=plan.study_id, now=last + timedelta(hours=hours), party=party)
        return apply(state, entry), entry

    slashed, slash = entered(study.state, StakeSlashed(case=case), key.public)
    voting, made = entered(begun, proposed, ash.public)
    vote = Vote(study=plan.study_id, proposal=made.id, choice="yes")
    after: list[tuple[StudyState, Any, PublicKey, float]] = [
        (study.state, StakeSlashed(case=case), key.public, 0),
        (slashed, SlashAppealed(slash=slash.id, answer=answer), key.public, 0),
        (slashed, StakeBurned(slash=slash.id), key.public, 3),
        (study.state, StakeReleased(), ash.public, 6),
        (begun, proposed, ash.public, 0),
        (voting, VoteCast(envelope=vote.sign(ash).to_bytes().decode()), ash.public, 0),
    ]

    def folded(state: StudyState, data: bytes) -> Any:
        shown = read(Entry, _settled(data))
        name = entry_id(shown.body, study=shown.study, term=shown.term, round_number=shown.round, party=shown.party)
        return apply(state, shown.model_copy(update={"id": name}))

    def submitted(data: bytes) -> bytes:
        """As a coordinator takes it in the middle of the study, whose log stays as it is."""
        log = MemoryLog(plan.study_id)
        for number, leaf in enumerate(study.log.entries(0, at + 1)):
            log.append(str(number), leaf)
        history = StudyHistory(plan=plan, plan_blob=begun.plan_blob, key=key, log=log)
        return Submissions(history, study.blobs).handle(ash.public, data)

    def signed(opened: Read, document: Any) -> Parser:
        return Parser(_resigned(type(document).payload_type(), ash, opened), (document.to_payload(),))

    entries = {
        f"{body.kind}, folded": Parser(partial(folded, state), (entered(state, body, party, hours)[1].to_payload(),))
        for state, body, party, hours in after
    }
    return {
        "pledge": signed(partial(open_signed, Pledge), pledge),
        "accusation": signed(submitted, accusation),
        "accusation of a false utility": signed(
            partial(open_signed, Accusation), accusation.model_copy(update={"case": false})
        ),
        "proposal": signed(submitted, proposal),
        "vote": signed(partial(open_signed, Vote), vote),
        "submission": Parser(submitted, (study["ash"].pledged(),)),
        **entries,
    }


def _two_studies(study: InMemoryStudy) -> tuple[SplitView, TwoStudies]:
    """A split view that is none, and the answer to it: the other tree is of another study's log."""
    body = StudyPublished(plan="0" * 64, plan_hash="0" * 64, minted=1)
    other = make_entry(body, study="other-0", now=NOW).sign(study.key).to_bytes()
    leaves = [study.log.entry(0), other]
    trees = [sign_checkpoint(Checkpoint(study.plan.origin, 1, merkle.leaf_hash(leaf)), study.key) for leaf in leaves]
    found = two_roots(*trees)
    assert found is not None
    if trees[0].to_bytes().decode() != found.first.checkpoint:
        leaves.reverse()
    first, second = (Opening(entry=leaf.decode(), proof=()) for leaf in leaves)
    return SplitView(evidence=found.to_bytes().decode()), TwoStudies(first=first, second=second)


def _noted(data: bytes, key: PrivateKey) -> bytes:
    """A note's text under the signature of ``key``, whatever it says."""
    body = data.partition(b"\n\n")[0]
    origin = body.partition(b"\n")[0].decode("utf-8", "replace")
    signed = key_id(origin, b"\x01", key.public) + key.sign(body + b"\n")
    return body + f"\n\n— {origin} {base64.b64encode(signed).decode()}\n".encode()


def _quorum(study: InMemoryStudy, data: bytes) -> bool:
    """A named witness says any time that it likes; the newest of enough is compared with the clock."""
    witness, head = study["ash"].key, study.history.checkpoint().checkpoint
    signed = cosign(head, witness, timestamp=int.from_bytes(data[:_SIZE], "big"))
    found = newest_quorum([(head.size, signed)], Witnesses(frozenset({witness.public}), 1))
    return is_stale(found, NOW, age_max=timedelta(days=1))


def _packed(one: int, other: int, *hashes: bytes) -> bytes:
    return one.to_bytes(_SIZE, "big") + other.to_bytes(_SIZE, "big") + b"".join(hashes)


def _unpacked(data: bytes) -> tuple[int, int, bytes, bytes, list[bytes]]:
    """Two numbers and hashes; the last one may be cut short."""
    one, other = (int.from_bytes(data[at : at + _SIZE], "big", signed=True) for at in (0, _SIZE))
    first, second, *proof = [
        data[at : at + _HASH] for at in range(2 * _SIZE, max(len(data), 2 * _SIZE + 2 * _HASH), _HASH)
    ]
    return one, other, first, second, proof


def _inclusion(data: bytes) -> None:
    index, size, leaf, root, proof = _unpacked(data)
    merkle.verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=root)


def _consistency(data: bytes) -> None:
    old, new, old_root, new_root, proof = _unpacked(data)
    merkle.verify_consistency(old_size=old, old_root=old_root, new_size=new, new_root=new_root, proof=proof)


def _evidence(key: PrivateKey, data: bytes) -> Any:
    """Evidence whose notes are signed anew, in order."""
    document = parse(data)
    for name in ("first", "second"):
        view = document.get(name) if isinstance(document, dict) else None
        if isinstance(view, dict) and isinstance(view.get("checkpoint"), str):
            view["checkpoint"] = _noted(view["checkpoint"].encode(), key).decode("utf-8", "replace")
    if isinstance(document, dict) and {"first", "second"} <= set(document):
        document["first"], document["second"] = sorted((document["first"], document["second"]), key=canonical_bytes)
    return verify_evidence(canonical_bytes(document) + b"\n")


def _doors(study: InMemoryStudy, traffic: dict[str, list[bytes]]) -> dict[str, Parser]:
    """The handlers behind the protocols, asked by a party of the study."""
    ash, birch = study["ash"], study["birch"]
    doors = {name: service.handler for name, service in study.exchange._services.items()}
    inner = {name: service.handler for name, service in ash.exchange._services.items()}
    witness = ConsentLogWitness(
        ash.key,
        memory_database(*COSIGNING_TABLES),
        party=lambda _key: True,
        evidence=MemoryEvidence(),
        clock=lambda: NOW,
        rate=EASY,
    )
    relay = Relay(study.exchange, study.plan.study_id, lambda _key: True, rate=EASY)
    shown = sign_checkpoint(Checkpoint(consent_origin(birch.key.public), 0, merkle.EMPTY_ROOT), birch.key)
    request = CosigningRequest(institution=birch.did, checkpoint=shown.to_bytes().decode()).to_payload()
    relayed = RelayRequest(study=study.plan.study_id, witness=ash.did, request=request.decode())
    blob = canonical_bytes({"length": 10, "name": study.blobs.names()[0], "offset": 0})

    def door(protocol: str, *, sender: PublicKey = ash.key.public) -> Read:
        return lambda data: doors[protocol](sender, data)

    return {
        "door: join": Parser(door(JOIN), tuple(traffic[JOIN][:1])),
        "door: agreement": Parser(door(AGREEMENT), tuple(_of(traffic[AGREEMENT], ash.key))),
        "door: revocation": Parser(door(REVOCATION, sender=study["cedar"].key.public), tuple(traffic[REVOCATION])),
        "door: blob": Parser(door(BLOB), (blob,), (PeerError, UnavailableError)),
        "door: probe": Parser(door(PROBE), (bytes(7) + b"\x09",)),
        "door: relay": Parser(
            lambda data: relay.handle(birch.key.public, _settled(data)), (relayed.to_payload(),), (AccordError,)
        ),
        "door: cosign": Parser(
            lambda data: inner[COSIGN](study.key.public, _settled(data)), tuple(traffic[COSIGN][-1:])
        ),
        "door: consent cosign": Parser(
            lambda data: witness.handle(birch.key.public, _shown(data, birch.key)), (request,)
        ),
        **_sharing(study),
        "door: overlap": Parser(
            lambda data: inner[OVERLAP](study.key.public, _settled(data)), tuple(traffic[OVERLAP]), (AccordError,)
        ),
        "overlap request": Parser(partial(read, OverlapRequest), tuple(traffic[OVERLAP][-1:])),
        "overlap reply": Parser(partial(read, OverlapReply), (inner[OVERLAP](study.key.public, traffic[OVERLAP][0]),)),
        "cosign reply": Parser(partial(read, CosignReply), (CosignReply(size=3, cosignature="x").to_payload(),)),
        "consent cosign reply": Parser(partial(read, CosigningReply), (CosigningReply(size=3).to_payload(),)),
        "cosign request": Parser(partial(read, CosignRequest), (traffic[COSIGN][0],)),
        "join request": Parser(partial(read, JoinRequest), tuple(traffic[JOIN][:1])),
    }


def _sharing(study: InMemoryStudy) -> dict[str, Parser]:
    """Models in pieces: what a node asks, what it is answered, what another node asks of it."""
    ash, model = study["ash"].key.public, study.history.state.first_model or ""
    plan = study.plan.study_id
    sources = Sources(
        study.exchange, study.blobs, plan, party=ash.__eq__, named=model.__eq__, rate=EASY, clock=lambda: 0.0
    )
    gates = Gates(party=lambda _key: True, named=model.__eq__)
    giver = Sharing(study.exchange, study.key.public, plan, study.blobs, gates=gates, gives=True)
    address = f"/ip4/192.0.2.1/tcp/4001/p2p/{ash.peer_id}"
    asked = SourcesRequest(study=plan, name=model, held="0", addresses=(address,), cut=True)
    reply = SourcesReply(size=9, pieces=("0" * 64,), take=(0,), leads=(Lead(address=address, held="1"),))
    piece = PieceRequest(study=plan, name=model, number=0)
    return {
        "door: sources": Parser(
            lambda data: sources.handle(ash, _settled(data)), (asked.to_payload(),), (PeerError, UnavailableError)
        ),
        "sources": Parser(lambda data: read(SourcesReply, _settled(data)), (reply.to_payload(),)),
        "door: piece": Parser(
            lambda data: giver._give(ash, _settled(data)),
            (piece.to_payload(),),
            (PeerError, UnavailableError),
        ),
        "piece": Parser(partial(open_piece, count=12), (piece_answer(0b101, b"piece"), piece_answer(0, b""))),
    }


def _shown(data: bytes, key: PrivateKey) -> bytes:
    """A request to cosign whose checkpoints are signed anew."""
    try:
        document = parse(data)
        for name in ("checkpoint", "old"):
            if isinstance(document, dict) and isinstance(document.get(name), str):
                document[name] = _noted(document[name].encode(), key).decode()
        return canonical_bytes(document)
    except PeerError:
        return data


def _flower(traffic: dict[str, list[bytes]]) -> dict[str, Parser]:
    """Flower's messages, and the arrays inside."""
    tasks, replies = traffic[messages.TASK], traffic[messages.REPLY]
    array = io.BytesIO()
    np.lib.format.write_array(array, np.arange(4, dtype="<i8"), version=(1, 0))
    vector = messages.pack(messages.vector_reply(1, "1", 2, 3, np.arange(4, dtype=np.int64)))
    return {
        "task": Parser(lambda data: messages.round_task(messages.unpack(data)), (tasks[0], tasks[-1])),
        "reply": Parser(lambda data: messages.answer_of(messages.unpack(data)), (replies[0],)),
        "vector in a reply": Parser(lambda data: messages.vector_of_reply(messages.unpack(data)), (vector,)),
        "array": Parser(
            lambda data: messages.vector_of({"": Array(dtype="int64", shape=(4,), stype="numpy.ndarray", data=data)}),
            (array.getvalue(),),
        ),
        "array's header": Parser(_array_header, (b"{'descr': '<i8', 'fortran_order': False, 'shape': (4,), }  \n",)),
        **_own_apps(array.getvalue()),
    }


def _own_apps(array: bytes) -> dict[str, Parser]:
    """What a user's own app sends, and says of itself."""

    def of_array(data: bytes) -> None:
        one = Array(dtype="int64", shape=(4,), stype="numpy.ndarray", data=data)
        check_arrays(RecordDict({"arrays": ArrayRecord({"0": one})}))

    records = messages.pack_records(RecordDict({"arrays": ArrayRecord([np.zeros((2, 3))]), "state": ConfigRecord()}))
    project = b"[tool.flwr.app.components]\nclientapp = 'a.b:app'\n[tool.flwr.app.config]\nrate = 0.5\n"
    return {
        "app's records": Parser(messages.unpack_records, (records,)),
        "app's array": Parser(of_array, (array,)),
        "sandbox's answer": Parser(
            lambda data: reply_parts(checked_answer(data, 0)),
            (b"+" + len(records).to_bytes(8, "big") + records + records,),
            raises=(PeerError, UnavailableError),
        ),
        "app's project": Parser(
            lambda data: described({"pyproject.toml": data}, Path("app")), (project,), raises=(OperatorError,)
        ),
    }


def _array_header(data: bytes) -> Any:
    """A header of the right length before four integers."""
    head = np.lib.format.magic(1, 0) + min(len(data), 65_535).to_bytes(2, "little") + data[:65_535]
    return messages.vector_of({"": Array(dtype="int64", shape=(4,), stype="numpy.ndarray", data=head + bytes(32))})


def _vector_key(name: str) -> PrivateKey:
    """A key of ``scripts/make_consent_vectors.py``."""
    return PrivateKey(hashlib.sha256(b"accord consent vectors: " + name.encode()).digest())


def _consents(study: InMemoryStudy) -> dict[str, Parser]:
    """Records, histories, receipts, findings: as received, and signed anew."""
    files = {path.stem: path.read_bytes() for path in sorted(VECTORS.glob("*.json"))}
    receipts = [data for name, data in files.items() if name.startswith("receipt")]
    histories = [data for name, data in files.items() if name.startswith("history")]
    keys = [_vector_key(name) for name in ("anna", "ben", "parent", "hospital", "court")]
    anew = partial(_proven, {key.public.did: key for key in keys})
    records = [data for name, data in files.items() if not name.startswith(("receipt", "history"))]
    finding = Approval(
        duo="DUO:0000021",
        plan_hash="0" * 64,
        by="the officer",
        grounds="decision 12",
        given_at="2025-01-15T12:00:00Z",
        valid_until="2026-01-15T12:00:00Z",
    )
    hospital = _vector_key("hospital")
    batch = study["ash"].registry._log.entry(0)
    note = parse(files["history-held-against-its-log"])["log"]["notes"][0].encode()
    return {
        "record": Parser(partial(open_record, now=NOW), tuple(records), (ConsentError,)),
        "record, signed anew": Parser(partial(anew, partial(open_record, now=NOW)), tuple(records), (ConsentError,)),
        "consent file": Parser(partial(open_file, now=NOW), (*histories, *receipts, *records[:2]), (ConsentError,)),
        "receipt": Parser(open_receipt, tuple(receipts), (ConsentError,)),
        "receipt, signed anew": Parser(partial(anew, open_receipt), tuple(receipts), (ConsentError,)),
        "approval": Parser(
            _resigned(APPROVAL_TYPE, hospital, partial(open_approval, institution=hospital.public)),
            (finding.to_payload(),),
        ),
        "consent batch": Parser(lambda data: open_batch(_settled(data)), (batch,)),
        "log's note": Parser(partial(open_note, signer=hospital.public), (note,)),
    }


def _proven(people: dict[str, PrivateKey], opened: Read, data: bytes) -> Any:
    """The document under a new proof by its issuer (an unknown one: the hospital)."""
    try:
        document = parse(data)
        unsigned = {name: value for name, value in document.items() if name != "proof"}
        unsigned.setdefault("@context", list(CONTEXT))
        issuer = unsigned.get("issuer")
        key = people.get(issuer if isinstance(issuer, str) else "", _vector_key("hospital"))
        created = parse_instant(document["proof"]["created"])
        data = canonical_bytes(add_proof(unsigned, key, created=created))
    except (PeerError, AttributeError, KeyError, TypeError):
        return opened(data)
    return opened(data)


def _market() -> dict[str, Parser]:
    """The files of a market, as parties sign them, and the call that a person writes."""
    worths = {"ash": 1, "birch": 2}
    market = Played(draft(), worths, {"ash": 3, "birch": 5})
    call, sealed = market.call, market.sealed

    def signed(kind: type[Signed], key: PrivateKey, opened: Read, data: bytes) -> Parser:
        return Parser(
            _resigned(kind.payload_type(), key, opened),
            (open_envelope(data, payload_type=kind.payload_type()).payload,),
        )

    written = "\n".join(
        [
            'version = 1\nbudget_microcredits = 9\nworth = "Beds."\nseal_until = "2026-12-01T12:00:00Z"',
            "open_until = 2026-12-04T12:00:00Z",
            *(f'[[candidates]]\nsite = "{name}"\ndid = "{DIDS[name]}"\nworth = 1' for name in worths),
        ]
    )
    ash = DIDS["ash"]
    return {
        "market's file": Parser(kind_of, (market.call_bytes, market.list_bytes, market.signed())),
        "market call": signed(MarketCall, COORDINATOR, open_call, market.call_bytes),
        "sealed price": signed(SealedPrice, KEYS["ash"], lambda data: open_offer(data, call), market.offers[ash]),
        "list of sealed prices": signed(SealedList, COORDINATOR, lambda data: open_list(data, call), market.list_bytes),
        "opening": signed(
            RevealedPrice, KEYS["ash"], lambda data: open_price(data, call, sealed), market.openings[ash]
        ),
        "market outcome": signed(MarketOutcome, COORDINATOR, open_outcome, market.signed()),
        "market call in TOML": Parser(
            _text(partial(call_from_toml, plan=market.plan, source="call.toml")), (written.encode(),), (OperatorError,)
        ),
    }


def _files(study: InMemoryStudy, folder: Path) -> dict[str, Parser]:
    """What a person puts on the disk: plans, tables, settings, keys, decisions."""
    place = folder / "file"

    def in_file(call: Callable[[Path], Any], name: str = "file") -> Read:
        def opened(data: bytes) -> Any:
            path = place.parent / name
            path.write_bytes(data)
            path.chmod(0o600)
            return call(path)

        return opened

    template = (ROOT / "clients" / "demo" / "plans" / "heart.toml").read_bytes()
    settings = PartySettings(role="node", name="ash", proxy="http://a:b@proxy:1").to_toml().encode()
    decisions = b"subject,action,valid_until\np1,grant,2027-01-01T00:00:00Z\np2,withdraw,\n"
    address = checksummed(bytes(range(20)))
    raises = (OperatorError,)
    return {
        "plan in TOML": Parser(_text(partial(plan_from_toml, source="plan.toml")), (template,), raises),
        "validation rows": Parser(partial(read_validation, study.plan), (study.validation,), raises),
        "table": Parser(in_file(read_file), (study.validation,), raises),
        "settings": Parser(in_file(lambda path: load_settings(path.parent, {}), "accord.toml"), (settings,), raises),
        "key file": Parser(in_file(load_key), (STRANGER.seed.hex().encode() + b"\n",), raises),
        "payout accounts, CSV": Parser(
            in_file(read_accounts, "accounts.csv"), (f"account,address\nash,{address}\n".encode(),), raises
        ),
        "payout accounts, JSON": Parser(
            in_file(read_accounts, "accounts.json"), (f'{{"institution:ash":"{address}"}}'.encode(),), raises
        ),
        "decisions": Parser(in_file(read_decisions), (decisions,), raises),
    }
