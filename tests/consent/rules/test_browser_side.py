"""Our canonical form and our proofs against the modules that the browser runs, in one long-lived Node process."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from consent_people import HOSPITAL, NOW, terms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.rules.proof import unsigned_proof
from consent.rules.record import Action, build, open_record
from consent.rules.statement import Statement
from federation.errors import ConsentError, PeerError
from federation.rules.canonical import INTEGER_MAX, canonical_bytes, parse, sha256_hex
from federation.rules.keys import PublicKey

STATIC = Path(__file__).parents[3] / "consent" / "web" / "static"
Ask = Callable[[dict[str, Any]], Any]

pytestmark = [pytest.mark.processes, pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")]

# All of Unicode, with a taste for what canonical forms differ in: controls, quotes, keys that UTF-16 sorts otherwise.
characters = st.characters(exclude_categories=("Cs",)) | st.sampled_from(
    '\x00\x1f\x7f"\\/\b\f\n\r\t é\u2028\ufb33\U0001f600'
)
texts = st.text(characters, max_size=12)
scalars = st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
spellings = st.tuples(values, st.booleans(), st.sampled_from([None, 2])).map(
    lambda drawn: json.dumps(drawn[0], ensure_ascii=drawn[1], indent=drawn[2])
)
# What two parsers read differently, or one refuses: pieces of JSON, glued together.
pieces = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"a"',
            '"\\ud800"',
            '"\\u0061"',
            "1",
            "-0",
            "1.0",
            "1e3",
            "9007199254740993",
            "null",
            " ",
        ]
    ),
    max_size=9,
).map("".join)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    folder = tmp_path_factory.mktemp("browser") / "static"
    shutil.copytree(STATIC, folder)
    shutil.copy(Path(__file__).with_name("browser_side.mjs"), folder)
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    command = ["node", str(folder / "browser_side.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as node:
        assert node.stdin is not None
        assert node.stdout is not None

        def answer(question: dict[str, Any]) -> Any:
            assert node.stdin is not None
            assert node.stdout is not None
            node.stdin.write(json.dumps(question) + "\n")
            node.stdin.flush()
            return json.loads(node.stdout.readline())

        yield answer
        node.stdin.close()
        node.wait(timeout=10)


def ours(text: str) -> str | None:
    try:
        return canonical_bytes(parse(text.encode("utf-8"))).decode("utf-8")
    except PeerError:
        return None


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(spellings | pieces, min_size=20, max_size=40))
def test_what_we_accept_the_browser_writes_byte_for_byte_the_same(ask: Ask, drawn: list[str]) -> None:
    theirs = ask({"kind": "canonicalize", "texts": drawn})
    for text, by_the_browser in zip(drawn, theirs, strict=True):
        by_us = ours(text)
        assert by_us is None or by_us == by_the_browser


def test_the_comparison_is_not_vacuous(ask: Ask) -> None:
    keys = {"\ufb33": 1, "\U0001f600": 2, "a": [None, True, -INTEGER_MAX, "\x00\u2028\x7f"]}
    text = json.dumps(keys)
    assert ours(text) == ask({"kind": "canonicalize", "texts": [text]})[0]
    assert list(json.loads(ours(text) or "")) == ["a", "\U0001f600", "\ufb33"]  # UTF-16 order, not code points'
    assert ask({"kind": "canonicalize", "texts": ['{"a":1,"a":2}', "1.0"]}) == ['{"a":2}', "1"]
    assert [ours('{"a":1,"a":2}'), ours("1.0")] == [None, None]  # where parsers may differ, we do not accept


def test_a_record_signed_by_the_browsers_code_verifies(ask: Ask) -> None:
    key = PublicKey(bytes.fromhex(ask({"kind": "key"})))
    statement = Statement.for_institution(HOSPITAL.public.did, name="Hôpital \U0001f3e5 “de la Rivière”")
    document = build(
        subject=key,
        institution=HOSPITAL.public,
        action=Action.GRANT,
        seq=1,
        prev=None,
        valid_from=NOW,
        terms=terms(),
        statement=statement,
    )
    question = {
        "kind": "sign",
        "document": document,
        "config": unsigned_proof(document, key, created=NOW),
        "hash": sha256_hex(canonical_bytes(document)),
        "did": key.did,
    }
    data = ask(question).encode("utf-8")
    record = open_record(data)
    assert (record.canonical, record.subject, record.signed_at) == (data, key.did, NOW)
    assert record.statement == statement
    with pytest.raises(ConsentError, match="signature"):
        open_record(data.replace("Hôpital".encode(), b"Hospital"))
