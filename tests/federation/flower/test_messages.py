import contextlib
import io
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.errors import ConsentError, PeerError
from federation.flower import messages
from federation.flower.arrays import check_arrays
from federation.flower.messages import RoundTask
from federation.rules.keys import PrivateKey

NODE = messages.node_id_of(PrivateKey(b"n" * 32).public)
COORDINATOR = messages.node_id_of(PrivateKey(b"c" * 32).public)
TASK = RoundTask(
    study="heart-1",
    round=3,
    base_model="ab" * 32,
    deadline="2026-11-22T00:10:00Z",
    consent_sizes={"did:key:z1": 0, "did:key:z2": 512},
)


def task(task: RoundTask = TASK, *, group: str = "heart-1/3", kind: str = messages.TRAIN, node: int = NODE) -> Message:
    return messages.task_message(
        messages.round_content(messages.round_config(task)),
        run_id=1,
        group_id=group,
        message_type=kind,
        src_node_id=COORDINATOR,
        dst_node_id=node,
    )


def test_a_task_survives_the_wire() -> None:
    received = messages.unpack(messages.pack(task()))
    assert messages.round_task(received) == TASK
    assert received.metadata.message_id == task().metadata.message_id
    assert (received.metadata.src_node_id, received.metadata.dst_node_id) == (COORDINATOR, NODE)


def test_the_same_question_has_the_same_id_and_another_has_another() -> None:
    later = RoundTask(study="heart-1", round=3, base_model="ab" * 32, deadline="2027-01-01T00:00:00Z")
    assert task(later).metadata.message_id == task().metadata.message_id
    others = [task(group="heart-1/4"), task(kind=messages.REVEAL), task(node=COORDINATOR)]
    assert len({each.metadata.message_id for each in [task(), *others]}) == 4


def test_node_ids_are_positive_and_fit_in_63_bits() -> None:
    ids = {messages.node_id_of(PrivateKey(bytes([number]) * 32).public) for number in range(50)}
    assert len(ids) == 50
    assert all(0 < number < 2**63 for number in ids)


@given(name=st.text(max_size=20), data=st.binary(max_size=200))
def test_an_answer_survives_the_wire(name: str, data: bytes) -> None:
    reply = messages.with_reply_id(Message(messages.answer_content(name, data), reply_to=task()))
    received = messages.unpack(messages.pack(reply))
    assert messages.answer_of(received) == (name, data)
    assert received.metadata.reply_to_message_id == task().metadata.message_id
    assert received.metadata.src_node_id == NODE


def test_an_error_travels_as_flowers_error() -> None:
    reply = messages.error_reply(task(), ConsentError("Nobody consented.", remedy="Wait for consents."))
    received = messages.unpack(messages.pack(reply))
    assert received.has_error()
    assert received.error.reason == "ConsentError: Nobody consented. Wait for consents."
    with pytest.raises(PeerError, match="Nobody consented"):
        messages.answer_of(received)


@given(data=st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else_is_raised(data: bytes) -> None:
    with pytest.raises(PeerError):
        messages.unpack(data)


@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_damaged_message_is_read_or_refused(position: int, value: int) -> None:
    data = bytearray(messages.pack(task()))
    data[position % len(data)] = value
    try:
        messages.round_task(messages.unpack(bytes(data)))
    except PeerError as error:
        refused = error.message
        assert "refused" in refused  # both outcomes are fine; any other exception is not


def test_a_message_above_the_limit_is_refused() -> None:
    with pytest.raises(PeerError, match="more than the 10"):
        messages.unpack(messages.pack(task()), max_bytes=10)


def test_a_message_without_a_round_is_refused() -> None:
    empty = messages.task_message(
        RecordDict(), run_id=1, group_id="g", message_type="train", src_node_id=1, dst_node_id=2
    )
    with pytest.raises(PeerError, match="no record"):
        messages.round_task(empty)


@given(vector=hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(-(2**63), 2**63 - 1)))
def test_a_vector_survives_exactly(vector: messages.Vector) -> None:
    reply = messages.vector_reply(1, "heart-1/3", NODE, COORDINATOR, vector)
    received = messages.vector_of_reply(messages.unpack(messages.pack(reply)))
    assert received.dtype == np.int64
    assert received.tobytes() == vector.tobytes()


def npy(array: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def announced(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def headed(header: bytes, *, more: int = 0) -> bytes:
    """A file with any header, whose length it overstates by ``more``."""
    return b"\x93NUMPY\x01\x00" + (len(header) + more).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (npy(np.zeros(3)), "numpy.ndarray"),
        (npy(np.zeros((2, 2), np.int64)), "numpy.ndarray"),
        (npy(np.array(["code"], dtype=object)), "numpy.ndarray"),
        (announced((10**12,)), "numpy.ndarray"),
        (npy(np.zeros(3, np.int64))[:-1], "numpy.ndarray"),
        (npy(np.zeros(3, np.int64)) + b"x", "numpy.ndarray"),
        (npy(np.zeros(3, np.int64)), "pickle"),
        (b"", "numpy.ndarray"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "numpy.ndarray"),
        (headed(b"(" * 400), "numpy.ndarray"),
        (headed(b"{[]: 1}\n"), "numpy.ndarray"),
        (headed(b"{'descr': '<i8', 'fortran_order': False, 'shape': (0,), }\n", more=1), "numpy.ndarray"),
    ],
)
def test_anything_but_one_complete_int64_vector_is_refused(data: bytes, kind: str) -> None:
    record = ArrayRecord({"vector": Array("int64", (3,), kind, data)})
    with pytest.raises(PeerError):
        messages.vector_of(record)


@pytest.mark.parametrize(
    "changed",
    [
        {"round": 0},
        {"round": True},
        {"study": 7},
        {"deadline": b"x"},
        {"consent_parties": ["did:key:z1"]},
        {"consent_sizes": [-1, 5]},
    ],
)
def test_a_malformed_round_is_refused(changed: dict[str, Any]) -> None:
    config = messages.round_config(TASK)
    for key, value in changed.items():
        config[key] = value
    asked = messages.task_message(
        messages.round_content(config),
        run_id=1,
        group_id="g",
        message_type="train",
        src_node_id=COORDINATOR,
        dst_node_id=NODE,
    )
    with pytest.raises(PeerError):
        messages.round_task(asked)


def test_two_arrays_are_refused() -> None:
    one = Array(np.zeros(2, np.int64))
    with pytest.raises(PeerError, match="exactly one"):
        messages.vector_of(ArrayRecord({"a": one, "b": one}))


def array_of(header: bytes, body: bytes = bytes(32)) -> Array:
    """An array whose bytes begin with any header, well or badly formed."""
    padded = header.ljust(64) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + body
    return Array(dtype="float64", shape=(4,), stype="numpy.ndarray", data=data)


def test_records_keep_their_arrays_and_settings() -> None:
    arrays = ArrayRecord([np.arange(6.0).reshape(2, 3), np.array(7.0), np.zeros((0, 4), np.int8)])
    records = messages.unpack_records(messages.pack_records(RecordDict({"arrays": arrays})))
    shown = [array.tolist() for array in records.array_records["arrays"].to_numpy_ndarrays()]
    assert shown == [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], 7.0, []]
    whole = array_of(b"{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }")
    check_arrays(RecordDict({"arrays": ArrayRecord({"whole": whole})}))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"(10**",
        b"{[]: 1}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (5,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-4,), }",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': '<f3', 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': '|S8', 'fortran_order': False, 'shape': (4,), }",
    ],
)
def test_an_array_of_a_stranger_is_exactly_what_it_says(header: bytes) -> None:
    arrays = ArrayRecord({"one": array_of(header)})
    with pytest.raises(PeerError):
        messages.unpack_records(messages.pack_records(RecordDict({"arrays": arrays})))


@given(st.binary(max_size=200))
def test_no_bytes_of_a_stranger_raise_anything_else(data: bytes) -> None:
    array = Array(dtype="float64", shape=(4,), stype="numpy.ndarray", data=b"\x93NUMPY\x01\x00" + data)
    for parse in (lambda: messages.unpack_records(data), lambda: messages.vector_of(ArrayRecord({"x": array}))):
        with contextlib.suppress(PeerError):
            parse()


def test_an_app_s_group_names_the_app() -> None:
    asked = messages.task_message(
        RecordDict(),
        run_id=1,
        group_id=messages.app_group("a" * 64, "3/left"),
        message_type="train",
        src_node_id=COORDINATOR,
        dst_node_id=NODE,
    )
    assert messages.app_group_of(asked) == ("a" * 64, "3/left")
