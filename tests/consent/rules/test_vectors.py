"""The committed vectors, judged by the pure rules and by the command line; and what their JSON-LD and schema say."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pyld import jsonld

from consent.rules.history import open_file
from consent.rules.refusal import RefusedRecordError
from consent.rules.wire import CONTEXT, json_schema, receipt_json_schema
from federation.cli.main import main

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests" / "vectors" / "consent"
MUST_PASS = sorted((VECTORS / "must_pass").glob("*.json"))
MUST_FAIL = sorted((VECTORS / "must_fail").glob("*.json"))
SCHEMA = ROOT / "docs" / "reference" / "consent-record.schema.json"
RECEIPT_SCHEMA = ROOT / "docs" / "reference" / "consent-receipt.schema.json"
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def documents(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Every good document of one type, those inside histories too."""
    found = []
    for path in MUST_PASS:
        content = json.loads(path.read_text(encoding="utf-8"))
        records = content if isinstance(content, list) else content.get("records", [content])
        found += [(f"{path.stem} {number}", item) for number, item in enumerate(records) if kind in item["type"]]
    return found


RECORDS = documents("AccordConsentRecord")
RECEIPTS = documents("AccordConsentReceipt")


@pytest.mark.parametrize("path", MUST_PASS, ids=lambda path: path.stem)
def test_what_must_pass_passes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert open_file(path.read_bytes(), NOW).records
    assert main(["consent", "verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True


@pytest.mark.parametrize("path", MUST_FAIL, ids=lambda path: path.stem)
def test_what_must_fail_is_refused_for_the_reason_in_its_name(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = re.sub(r"-\d+$", "", path.stem)
    with pytest.raises(RefusedRecordError) as caught:
        open_file(path.read_bytes(), NOW)
    assert (caught.value.reason, caught.value.code) == (reason, "ConsentError")
    assert main(["consent", "verify", str(path), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["valid"], answer["reasons"]) == (False, [reason])
    assert answer["remedy"]


def test_every_kind_of_bad_document_is_there_and_described() -> None:
    reference = (ROOT / "docs" / "reference" / "consent-record.md").read_text(encoding="utf-8")
    reasons = {re.sub(r"-\d+$", "", path.stem) for path in MUST_FAIL}
    assert sum(path.stem.startswith("small-order-key") for path in MUST_FAIL) == 14
    assert sum(path.stem.startswith("non-canonical-key") for path in MUST_FAIL) == 34
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in reference] == []


@pytest.mark.processes
def test_the_vectors_are_those_that_the_script_makes(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "make_consent_vectors.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True, timeout=120, cwd=ROOT)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(VECTORS): path.read_bytes() for path in VECTORS.rglob("*") if path.is_file()}
    assert sorted(made) == sorted(kept)
    assert [str(name) for name in made if made[name] != kept[name]] == []


@pytest.mark.parametrize(("file", "make"), [(SCHEMA, json_schema), (RECEIPT_SCHEMA, receipt_json_schema)])
def test_the_published_schema_is_current(file: Path, make: Any) -> None:
    assert json.loads(file.read_text(encoding="utf-8")) == make()


@pytest.mark.parametrize(("name", "document"), RECORDS, ids=[name for name, _ in RECORDS])
def test_every_good_record_follows_the_published_schema(name: str, document: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(document)] == [], name
    assert not validator.is_valid({**document, "more": 1})
    about = document["credentialSubject"]
    assert not validator.is_valid({**document, "credentialSubject": {**about, "seq": "1"}})


@pytest.mark.parametrize(("name", "document"), RECEIPTS, ids=[name for name, _ in RECEIPTS])
def test_every_good_receipt_follows_the_published_schema(name: str, document: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(RECEIPT_SCHEMA.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(document)] == [], name


SHIPPED = dict(zip(CONTEXT, ("credentials-v2.jsonld", "accord-consent-v2.jsonld"), strict=True))


def shipped(url: str, _options: Any = None) -> dict[str, Any]:
    """A document loader that knows the shipped contexts and nothing else."""
    text = (ROOT / "consent" / "rules" / "schema" / SHIPPED[url]).read_text(encoding="utf-8")
    return {
        "contextUrl": None,
        "documentUrl": url,
        "contentType": "application/ld+json",
        "document": json.loads(text),
    }


def expand(document: Any) -> Any:
    return jsonld.expand(document, {"documentLoader": shipped})


def names(value: Any) -> Iterator[str]:
    """Every IRI in an expanded document."""
    if isinstance(value, list):
        for item in value:
            yield from names(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in {"@id", "@type"}:
                yield from [item] if isinstance(item, str) else item
            elif not name.startswith("@"):
                yield name
                yield from names(item)
            else:
                yield from names(item)


def leaves(value: Any) -> int:
    """How many values a plain document holds, its contexts apart."""
    if isinstance(value, list):
        return sum(leaves(item) for item in value)
    if isinstance(value, dict):
        return sum(leaves(item) for name, item in value.items() if name != "@context")
    return 1


def expanded_leaves(value: Any) -> int:
    """How many values an expanded document holds."""
    if isinstance(value, list):
        return sum(expanded_leaves(item) for item in value)
    if isinstance(value, dict):
        if "@value" in value:
            return 1
        parts = (len(item) if isinstance(item, list) else 1 for name, item in value.items() if name == "@type")
        own = sum(parts) + ("@id" in value)
        return own + sum(expanded_leaves(item) for name, item in value.items() if name not in {"@type", "@id"})
    return 1


@pytest.mark.parametrize(("name", "document"), RECORDS + RECEIPTS, ids=[name for name, _ in RECORDS + RECEIPTS])
def test_nothing_is_lost_in_json_ld_and_every_term_exists(name: str, document: dict[str, Any]) -> None:
    expanded = expand(document)
    assert expanded_leaves(expanded) == leaves(document), name
    terms = json.loads((ROOT / "tests" / "vectors" / "dpv_terms.json").read_text(encoding="utf-8"))
    known = {prefix + term for prefix, found in terms.items() if prefix != "source" for term in found}
    used = {iri for iri in names(expanded) if iri.startswith("https://w3id.org/dpv")}
    assert used - known == set()
    assert [iri for iri in names(expanded) if ":" not in iri] == []
    bare = {iri.partition(":")[0] for iri in names(expanded)}
    assert bare <= {"https", "http", "did"}, "a prefix was not expanded"


def test_a_field_without_a_meaning_would_be_noticed() -> None:
    document = dict(RECORDS)["grant 0"]
    changed = {**document, "credentialSubject": {**document["credentialSubject"], "unheardOf": "x"}}
    assert expanded_leaves(expand(changed)) == leaves(changed) - 1
