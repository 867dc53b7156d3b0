"""Challenges: a false utility is proven from its bytes alone; an honest coordinator cannot be accused of one."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.coordinator.challenging import challenge_of
from federation.errors import PeerError
from federation.learning.evaluation import committed_utility
from federation.rules import challenge as rules
from federation.rules.audit import UTILITY_TOLERANCE, UTILITY_UNIT
from federation.rules.canonical import canonical_bytes, parse
from federation.rules.challenge import CHALLENGE_BYTES_MAX, Finding, make_challenge, verify_challenge
from federation.rules.checkpoint import Checkpoint, sign_checkpoint
from federation.rules.entries import open_entry
from federation.rules.keys import PrivateKey
from federation.rules.merkle import leaf_hash, root

LIE = 2**36
"""In units of 2^-40 nats: a sixteenth of a nat."""
ALLOWED = int(UTILITY_TOLERANCE * UTILITY_UNIT)
MASK = 5
FIRST = ("published", "started")
STRANGER = PrivateKey(bytes([55]) * 32)
Play = Callable[..., Any]


def lying(by: int) -> dict[str, Callable[[list[int]], list[int]]]:
    return {"utilities-1": lambda utilities: [value + by * (at == MASK) for at, value in enumerate(utilities)]}


def names(study: Any, number: int, mask: int) -> str:
    """How a coalition of a round is written."""
    players = study.tables[number - 1].players
    return ",".join(study.state.site(did) for at, did in enumerate(players) if mask >> at & 1) or "-"


def challenged(study: Any, folder: Path, number: int, mask: int) -> bytes:
    return challenge_of(folder, coalition=names(study, number, mask), round_number=number, study=None).data


def verified(study: Any, data: bytes) -> Finding:
    return verify_challenge(data, coordinator=study.key.public, utility=committed_utility)


def altered(data: bytes, **changes: Any) -> bytes:
    return canonical_bytes({**parse(data), **changes}) + b"\n"


@pytest.fixture(scope="module")
def false(play: Play, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bytes]:
    """A study whose coordinator lied about one coalition, and the challenge that catches it."""
    study = play(changes=lying(LIE)).played()
    folder = study.export(tmp_path_factory.mktemp("false") / "export")
    return study, challenged(study, folder, 1, MASK)


@pytest.mark.parametrize("rule", ['"weighted-mean"', '"trimmed-mean"\ntolerated = "0.34"'])
def test_every_entry_of_an_honest_table_holds(play: Play, tmp_path: Path, rule: str) -> None:
    study = play(edits={'"weighted-mean"': rule}).played()
    folder = study.export(tmp_path / "export")
    for number, table in enumerate(study.tables, start=1):
        for mask, utility in enumerate(table.utilities):
            found = verified(study, challenged(study, folder, number, mask))
            assert found.verdict == "holds"
            assert (found.round, found.logged, found.recomputed) == (number, utility, utility)
            assert (",".join(study.state.site(did) for did in found.coalition) or "-") == names(study, number, mask)


def test_a_round_without_quorum_has_one_entry_which_holds(play: Play, tmp_path: Path) -> None:
    study = play(edits={"quorum = 2": "quorum = 3"}).played()
    folder = study.export(tmp_path / "export")
    assert study.state.closed[1].outcome == "no-quorum"
    assert verified(study, challenged(study, folder, 2, 0)).verdict == "holds"


def test_a_false_entry_is_proven_by_the_file_and_the_key_alone(false: tuple[Any, bytes]) -> None:
    study, data = false
    found = verified(study, data)
    assert found.verdict == "false-entry"
    assert found.logged - found.recomputed == LIE
    assert found.coordinator == study.key.public
    assert found.entry_index == study.state.closed[0].entry_index
    assert len(data) < 20_000


def test_the_other_entries_of_that_table_hold(false: tuple[Any, bytes], tmp_path: Path) -> None:
    study, _ = false
    folder = study.export(tmp_path / "export")
    for mask in set(range(8)) - {MASK}:
        assert verified(study, challenged(study, folder, 1, mask)).verdict == "holds"


@pytest.mark.parametrize("by", [1, -1, ALLOWED, -ALLOWED, ALLOWED + 1, -ALLOWED - 1])
def test_rounding_is_no_lie(play: Play, tmp_path: Path, by: int) -> None:
    study = play(changes=lying(by)).played()
    found = verified(study, challenged(study, study.export(tmp_path / "export"), 1, MASK))
    assert found.logged - found.recomputed == by
    assert found.verdict == ("holds" if abs(by) <= ALLOWED else "false-entry")


def mutations(value: Any) -> Iterator[Any]:
    """Every leaf of a document changed, every list shortened, turned and lengthened, every field left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield from ({**value, key: changed} for changed in mutations(inner))
        yield {**value, "extra": 1}
    elif isinstance(value, list):
        yield value[1:]
        yield value[:-1]
        yield value[::-1]
        yield [*value, "0" * 64]
        for at, inner in enumerate(value):
            yield from ([*value[:at], changed, *value[at + 1 :]] for changed in mutations(inner))
    elif isinstance(value, str):
        yield ""
        yield value + " "
        for at in {0, len(value) // 3, len(value) // 2, len(value) - 1}:
            yield value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
    else:
        yield value + 1
        yield str(value)
        yield None


def test_a_proof_changed_anywhere_is_refused(false: tuple[Any, bytes]) -> None:
    study, data = false
    document = parse(data)
    for changed in mutations(document):
        if changed == document or changed.get("updates", document["updates"]).keys() < document["updates"].keys():
            continue  # a smaller coalition is another entry, which the next test is about
        with pytest.raises(PeerError):
            verified(study, canonical_bytes(changed) + b"\n")


def test_a_proof_without_one_of_its_updates_is_about_another_entry(false: tuple[Any, bytes]) -> None:
    study, data = false
    updates = parse(data)["updates"]
    for left_out in updates:
        found = verified(study, altered(data, updates={did: updates[did] for did in updates if did != left_out}))
        assert found.verdict == "holds"
        assert left_out not in found.coalition


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_ruins_a_proof(false: tuple[Any, bytes], draw: st.DataObject) -> None:
    study, data = false
    at = draw.draw(st.integers(0, len(data) - 1))
    flipped = bytes([data[at] ^ 1 << draw.draw(st.integers(0, 7))])
    with pytest.raises(PeerError):
        verified(study, data[:at] + flipped + data[at + 1 :])


def test_an_honest_coordinator_cannot_be_accused_with_its_own_documents(play: Play, tmp_path: Path) -> None:
    """Everything it signed or committed to in two studies, in combinations that it never said."""
    study, other = play().played(), play(seed=8, edits={"every fifth row": "every sixth row"}).played()
    folder, elsewhere = study.export(tmp_path / "one"), other.export(tmp_path / "other")
    first, second = (parse(challenged(study, folder, number, 3)) for number in (1, 2))
    foreign = parse(challenged(other, elsewhere, 1, 3))
    one, two = first["updates"]
    swapped = {one: first["updates"][two], two: first["updates"][one]}
    attempts: list[dict[str, Any]] = [
        {"table": second["table"]},
        {"opened": second["opened"], "base": second["base"]},
        {"closed": second["closed"], "table": second["table"]},
        {"closed": second["closed"], "table": second["table"], "updates": second["updates"]},
        {"opened": first["closed"]},
        {"started": first["opened"]},
        {"published": first["started"]},
        {"base": second["base"]},
        {"updates": second["updates"]},
        {"updates": swapped},
        {"updates": {STRANGER.public.did: first["updates"][one]}},
        {"salt": "0" * 64},
        {"rows": first["rows"].replace("yes", "no")},
        {"plan": foreign["plan"]},
        {"plan": foreign["plan"], "published": foreign["published"]},
        {"started": foreign["started"]},
        {"closed": foreign["closed"], "table": foreign["table"], "updates": foreign["updates"]},
        {name: foreign[name] for name in foreign if name not in ("table", "updates", "version")},
        {"checkpoint": foreign["checkpoint"]},
    ]
    for attempt in attempts:
        with pytest.raises(PeerError):
            verified(study, canonical_bytes({**first, **attempt}) + b"\n")


def relogged(study: Any, data: bytes, at: int, entry: bytes) -> bytes:
    """The challenge as its coordinator could make it with a tree of its four entries, the one ``at`` exchanged."""
    shown = parse(data)
    entries = [shown[name]["entry"].encode() for name in ("published", "started", "opened", "closed")]
    entries[at] = entry or entries[at]
    head = Checkpoint(study.plan.origin, len(entries), root([leaf_hash(each) for each in entries]))
    challenge = make_challenge(
        plan=shown["plan"].encode(),
        signed=sign_checkpoint(head, study.key),
        entries=entries,
        places=(0, 1, 2, 3),
        table=shown["table"].encode(),
        validation=(study.salt, study.rows),
        base=base64.b64decode(shown["base"]),
        updates={did: base64.b64decode(text) for did, text in shown["updates"].items()},
    )
    return challenge.to_bytes()


def test_entries_of_other_plans_studies_and_signers_are_refused(false: tuple[Any, bytes]) -> None:
    study, data = false
    assert verified(study, relogged(study, data, 0, b"")).verdict == "false-entry", "the tree itself is sound"
    published, started = (open_entry(parse(data)[name]["entry"].encode(), signer=study.key.public) for name in FIRST)
    of_another_plan = published.model_copy(update={"body": published.body.model_copy(update={"plan": "0" * 64})})
    of_another_study = started.model_copy(update={"study": "small-000000000000"})
    for at, entry, key in (
        (0, of_another_plan, study.key),
        (1, of_another_study, study.key),
        (1, started, STRANGER),
        (1, published, study.key),
    ):
        with pytest.raises(PeerError):
            verified(study, relogged(study, data, at, entry.sign(key).to_bytes()))


def test_another_coordinators_key_is_not_accused(false: tuple[Any, bytes]) -> None:
    with pytest.raises(PeerError, match="not by"):
        verify_challenge(false[1], coordinator=STRANGER.public, utility=committed_utility)


def test_what_is_too_large_is_refused_before_it_is_read(
    false: tuple[Any, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, data = false
    assert CHALLENGE_BYTES_MAX >= 15 * (8 << 20) * 4 // 3, "the longest models fit"
    monkeypatch.setattr(rules, "CHALLENGE_BYTES_MAX", len(data) - 1)
    assert verified(study, data).verdict == "false-entry"
    monkeypatch.setattr(rules, "CHALLENGE_BYTES_MAX", len(data) - 2)
    with pytest.raises(PeerError, match="more than"):
        verified(study, data)


@pytest.mark.parametrize("data", [b"", b"\n", b"{}\n", b"[]\n", b"\xff\n", b"{", b"null\n"])
def test_garbage_is_a_peer_s_error(false: tuple[Any, bytes], data: bytes) -> None:
    with pytest.raises(PeerError):
        verified(false[0], data)


def test_a_proof_has_one_last_byte(false: tuple[Any, bytes]) -> None:
    study, data = false
    for changed in (data[:-1], data[:-1] + b" ", data + b"\n", b" " + data):
        with pytest.raises(PeerError):
            verified(study, changed)


def test_one_vector_has_one_spelling(false: tuple[Any, bytes]) -> None:
    """Bits that base64 throws away would let one proof have many files."""
    study, data = false
    text = parse(data)["base"]
    last = text.rstrip("=")[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text.rstrip("=")[:-1] + alphabet[alphabet.index(last) ^ 1] + "=" * text.count("=")
    assert "=" in text
    assert base64.b64decode(other) == base64.b64decode(text)
    with pytest.raises(PeerError):
        verified(study, altered(data, base=other))
