"""Flower messages of Accord: how they are named, packed, read and checked.

This is the only module that touches what Flower keeps internal (``flwr.common.serde``, ``flwr.proto``, ``Metadata``,
``Run``, ``make_message``); flwr is pinned for it. Messages are built from explicit metadata, so nothing here depends on
Flower's process-wide ``TaskIdentity`` and several studies can run in one process.

A message's id is a hash of what it asks of whom (run, group, type, node): sending it again is the same message, and a
node that has answered it answers the same again. Nothing from the wire is unpickled; a vector's size is compared with
the bytes that came before anything is allocated.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from federation.errors import AccordError, PeerError
from federation.flower.arrays import check_arrays
from federation.rules.canonical import tagged_hash
from federation.rules.keys import PublicKey

TASK: Final = "/accord/task/1"
"""The coordinator's messages to nodes; the answer only says that one arrived."""
REPLY: Final = "/accord/reply/1"
"""The nodes' replies to the coordinator; the answer only says that one arrived."""
MESSAGE_BYTES_MAX: Final = 16 << 20

TRAIN: Final = "train"
REVEAL: Final = "query.reveal"

_CONFIG: Final = "round"
_ANSWER: Final = "answer"
_APP: Final = "app"
_VECTOR: Final = "vector"
_TASK_FIELDS: Final = frozenset(
    {"study", "round", "base_model", "deadline", "consent_parties", "consent_sizes", "update_parties", "updates"}
)
_TTL_S: Final = 30 * 24 * 3600.0
_ERROR_CODE: Final = 200
"""Flower's own error codes stay below 100."""
_BYTES_S_MIN: Final = 100_000
_VECTOR_ITEM: Final = np.dtype("<i8")
_NPY_VECTOR: Final = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"\{'descr': '<i8', 'fortran_order': False, 'shape': \((?P<count>[0-9]{1,18}),\), \} *\n",
    re.DOTALL,
)
"""How NumPy begins a file with one vector: a pattern, as its own reader evaluates the header as Python."""
_NPY_LENGTH_END: Final = 10

Vector = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RoundTask:
    """What the coordinator asks a node in one message. ``base_model`` and ``deadline`` are empty in a reveal.

    ``consent_sizes`` maps a did to the size of its consent log that the study saw last: the node proves consistency
    from there. ``updates`` maps a did to the number of its updates that the study holds: a node that remembers fewer
    has an older copy of its database.
    """

    study: str
    round: int
    base_model: str = ""
    deadline: str = ""
    consent_sizes: Mapping[str, int] = field(default_factory=dict)
    updates: Mapping[str, int] = field(default_factory=dict)


def node_id_of(peer: PublicKey) -> int:
    """Flower's number for a key: 63 bits of a hash, never 0."""
    return (int.from_bytes(tagged_hash("flower-node-id", peer.raw)[:8], "big") >> 1) | 1


def empty_run(run_id: int) -> Run:
    """A Flower run that carries nothing but its number."""
    return Run.create_empty(run_id=run_id)


def message_id(*parts: str) -> str:
    """The name of a message that asks for this."""
    return tagged_hash("flower-message", *(part.encode() for part in parts)).hex()


def task_message(
    content: RecordDict, *, run_id: int, group_id: str, message_type: str, src_node_id: int, dst_node_id: int
) -> Message:
    """A message to a node, with its deterministic id."""
    return make_message(
        metadata=Metadata(
            run_id=run_id,
            message_id=message_id(str(run_id), group_id, message_type, str(dst_node_id)),
            src_node_id=src_node_id,
            dst_node_id=dst_node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=time.time(),
            ttl=_TTL_S,
            message_type=message_type,
        ),
        content=content,
    )


def with_reply_id(reply: Message) -> Message:
    """``reply``, named after the message that it answers (Flower leaves that to its own server)."""
    metadata = reply.metadata
    name = tagged_hash("flower-reply", metadata.reply_to_message_id.encode()).hex()
    return make_message(
        metadata=Metadata(
            run_id=metadata.run_id,
            message_id=name,
            src_node_id=metadata.src_node_id,
            dst_node_id=metadata.dst_node_id,
            reply_to_message_id=metadata.reply_to_message_id,
            group_id=metadata.group_id,
            created_at=metadata.created_at,
            ttl=metadata.ttl,
            message_type=metadata.message_type,
        ),
        content=reply.content if reply.has_content() else None,
        error=reply.error if reply.has_error() else None,
    )


def error_reply(message: Message, error: AccordError) -> Message:
    """The reply of a node that refuses or fails: Flower's ``Error`` with class, sentence and remedy."""
    reason = f"{error.code}: {error.message} {error.remedy}"
    return with_reply_id(Message(Error(code=_ERROR_CODE + error.exit_code, reason=reason), reply_to=message))


def transfer_s_max(data: bytes) -> float:
    """How long ``data`` may be under way, in seconds: one for each 100 kB."""
    return len(data) / _BYTES_S_MIN


def pack(message: Message) -> bytes:
    """The message's protobuf bytes."""
    data: bytes = message_to_proto(message).SerializeToString()
    return data


def unpack(data: bytes, *, max_bytes: int = MESSAGE_BYTES_MAX) -> Message:
    """Read a message from the network.

    Raises:
        PeerError: too large, not a Flower message, without id or group, or with neither content nor error.
    """
    if len(data) > max_bytes:
        raise _refused(f"it has {len(data)} bytes, more than the {max_bytes} allowed")
    try:
        message = message_from_proto(ProtoMessage.FromString(data))
    except Exception as error:
        raise _refused(f"it is not readable ({type(error).__name__})") from error
    if not message.metadata.message_id or message.has_content() == message.has_error():
        raise _refused("it has no id, or not exactly one of content and error")
    return message


def pack_records(records: RecordDict) -> bytes:
    """The protobuf bytes of a message's content, or of an app's state."""
    data: bytes = recorddict_to_proto(records).SerializeToString()
    return data


def unpack_records(data: bytes) -> RecordDict:
    """Read records that a stranger's program made.

    Raises:
        PeerError: they are not readable, or hold an array that ``federation.flower.arrays`` refuses.
    """
    try:
        records = recorddict_from_proto(ProtoRecordDict.FromString(data))
    except Exception as error:
        raise _refused(f"its records are not readable ({type(error).__name__})") from error
    check_arrays(records)
    return records


def task_identity(run_id: int, node_id: int) -> None:
    """Say which run and node this process works for: what Flower writes into messages that an app makes itself.

    It is one for the whole process, which must therefore serve one app and nothing else.
    """
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, 0


def app_group(code_hash: str, group_id: str) -> str:
    """The group of a message that an app of this hash sends in a group of its own."""
    return f"{_APP}/{code_hash}/{group_id}"


def app_group_of(message: Message) -> tuple[str, str]:
    """The hash of the app that sent a message, and the app's own group.

    Raises:
        PeerError: no app's Grid made it.
    """
    kind, _, rest = message.metadata.group_id.partition("/")
    code_hash, found, group = rest.partition("/")
    if kind != _APP or not found:
        raise _refused("it does not say which app it is from")
    return code_hash, group


def refused_reply(reply: Message, error: AccordError) -> Message:
    """``error`` in the place of a reply that is not taken."""
    reason = f"{error.code}: {error.message} {error.remedy}"
    return make_message(metadata=reply.metadata, error=Error(code=_ERROR_CODE + error.exit_code, reason=reason))


def for_app(message: Message, group_id: str, *, message_id: str) -> Message:
    """``message`` under another group and id; its content is not copied."""
    metadata = message.metadata
    return make_message(
        metadata=Metadata(
            run_id=metadata.run_id,
            message_id=message_id,
            src_node_id=metadata.src_node_id,
            dst_node_id=metadata.dst_node_id,
            reply_to_message_id=metadata.reply_to_message_id,
            group_id=group_id,
            created_at=metadata.created_at,
            ttl=metadata.ttl,
            message_type=metadata.message_type,
        ),
        content=message.content,
    )


def round_config(task: RoundTask) -> ConfigRecord:
    """``task`` as Flower's configuration record."""
    return ConfigRecord(
        {
            "study": task.study,
            "round": task.round,
            "base_model": task.base_model,
            "deadline": task.deadline,
            "consent_parties": list(task.consent_sizes),
            "consent_sizes": list(task.consent_sizes.values()),
            "update_parties": list(task.updates),
            "updates": list(task.updates.values()),
        }
    )


def round_content(config: ConfigRecord) -> RecordDict:
    """The content of a message that carries nothing but a round's configuration."""
    return RecordDict({_CONFIG: config})


def round_task(message: Message) -> RoundTask:
    """What a received message asks.

    Raises:
        PeerError: it is not a message of Accord's coordinator.
    """
    config = _record(message, _CONFIG)
    unknown = sorted(set(config) - _TASK_FIELDS)
    if unknown:
        raise _refused(
            f"it asks for {', '.join(unknown)[:200]}, which no task has: whatever else counts is in the plan"
        )
    study, number = config.get("study"), config.get("round")
    base_model, deadline = config.get("base_model", ""), config.get("deadline", "")
    texts = all(isinstance(text, str) for text in (study, base_model, deadline))
    if not texts or not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise _refused("its round is not described by study, round, base_model and deadline")
    return RoundTask(
        study=str(study),
        round=number,
        base_model=str(base_model),
        deadline=str(deadline),
        consent_sizes=_numbers(config, "consent_parties", "consent_sizes"),
        updates=_numbers(config, "update_parties", "updates"),
    )


def _numbers(config: ConfigRecord, names: str, values: str) -> dict[str, int]:
    """A whole number for each party, from two lists of one length."""
    parties, numbers = config.get(names, []), config.get(values, [])
    if not isinstance(parties, list) or not isinstance(numbers, list) or len(parties) != len(numbers):
        raise _refused(f"{names} and {values} are not two lists of one length")
    result: dict[str, int] = {}
    for party, number in zip(parties, numbers, strict=True):
        if not isinstance(party, str) or not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise _refused(f"something in {values} is not a whole number, or not a party's")
        result[party] = number
    return result


def answer_content(name: str, data: bytes) -> RecordDict:
    """The content of a node's reply: a named document (a commitment, a refusal, an update)."""
    return RecordDict({_ANSWER: ConfigRecord({"name": name, "data": data})})


def answer_of(reply: Message) -> tuple[str, bytes]:
    """The named document in a node's reply.

    Raises:
        PeerError: the node reports an error, or the reply holds no such document.
    """
    if reply.has_error():
        raise PeerError(
            f"The node reports: {(reply.error.reason or 'no reason')[:1000]}",
            remedy="Its own log says more; ask its operator.",
        )
    record = _record(reply, _ANSWER)
    name, data = record.get("name"), record.get("data")
    if not isinstance(name, str) or not isinstance(data, bytes):
        raise _refused("its answer is not a name with bytes")
    return name, data


def vector_record(vector: Vector) -> ArrayRecord:
    """An int64 vector as Flower's array record."""
    return ArrayRecord({_VECTOR: Array(np.ascontiguousarray(vector, dtype="<i8"))})


def vector_reply(run_id: int, group_id: str, src_node_id: int, dst_node_id: int, vector: Vector) -> Message:
    """An admitted update in the form in which a strategy aggregates it."""
    parts = (str(run_id), group_id, TRAIN, str(src_node_id))
    return make_message(
        metadata=Metadata(
            run_id=run_id,
            message_id=tagged_hash("flower-admitted", *(part.encode() for part in parts)).hex(),
            src_node_id=src_node_id,
            dst_node_id=dst_node_id,
            reply_to_message_id=tagged_hash("flower-message", *(part.encode() for part in parts)).hex(),
            group_id=group_id,
            created_at=0.0,
            ttl=_TTL_S,
            message_type=TRAIN,
        ),
        content=RecordDict({_VECTOR: vector_record(vector)}),
    )


def vector_of(record: Mapping[str, Array]) -> Vector:
    """The int64 vector of an array record.

    Raises:
        PeerError: not exactly one one-dimensional int64 array, or its bytes are not as many as it says.
    """
    arrays = list(record.values())
    if len(arrays) != 1 or arrays[0].stype != "numpy.ndarray":
        raise _refused("it does not hold exactly one NumPy array")
    data = arrays[0].data
    header = _NPY_VECTOR.match(data)
    if header is None or header.end() != _NPY_LENGTH_END + int.from_bytes(header["length"], "little"):
        raise _refused("its array is not an int64 vector in NumPy's format")
    if len(data) - header.end() != int(header["count"]) * _VECTOR_ITEM.itemsize:
        raise _refused("its array does not have as many numbers as it says")
    return np.frombuffer(data, dtype=_VECTOR_ITEM, offset=header.end()).astype(np.int64)


def vector_of_reply(reply: Message) -> Vector:
    """The vector in a reply made by :func:`vector_reply`, or by a ClientApp that sends one array record.

    Raises:
        PeerError: as :func:`vector_of`, or the reply is an error.
    """
    if reply.has_error():
        raise PeerError(
            f"The node reports: {(reply.error.reason or 'no reason')[:1000]}",
            remedy="Its own log says more; ask its operator.",
        )
    records = list(reply.content.array_records.values())
    if len(records) != 1:
        raise _refused("it does not hold exactly one array record")
    return vector_of(records[0])


def _record(message: Message, name: str) -> ConfigRecord:
    record: Any = message.content.get(name) if message.has_content() else None
    if not isinstance(record, ConfigRecord):
        raise _refused(f"it has no record {name!r}")
    return record


def _refused(why: str) -> PeerError:
    return PeerError(f"A Flower message is refused: {why}.", remedy="Both sides need the same version of Accord.")
