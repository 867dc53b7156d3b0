"""Each export says what the record says, and gives back what it can carry."""

import base64
import html
import json
import re
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from consent_people import ANNA, DAY, HOSPITAL, NOW, chain, record
from fhir.resources.consent import Consent
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.exports import (
    consented_from_duo,
    printed,
    terms_from_fhir,
    terms_from_odrl,
    to_duo,
    to_fhir,
    to_kantara,
    to_odrl,
)
from consent.language import LANGUAGES
from consent.rules.diseases import BROADER
from consent.rules.duo import MODIFIERS, PERMISSIONS
from consent.rules.purposes import Consented
from consent.rules.receipt import ModelMention, Receipt, RoundInFlight, build_receipt, open_receipt
from consent.rules.record import Action, ConsentRecord, Terms, open_record
from federation.errors import ConsentError
from federation.rules.instant import format_instant

CONDITIONS = {"DUO:0000022": ("FR", "PT"), "DUO:0000025": ("2027-01-01",), "DUO:0000028": ("Hospital <A> & B",)}
FULL: dict[str, Any] = {
    "purposes": ("DUO:0000007", "DUO:0000011", "DUO:0000022", "DUO:0000025", "DUO:0000028", "DUO:0000046"),
    "diseases": ("MONDO:0005267", "MONDO:0007254"),
    "conditions": CONDITIONS,
    "rounds_max": 12,
    "code_hash": "c0de" * 16,
    "epsilon_max": Decimal("2.5"),
}


@pytest.fixture(scope="module")
def grant() -> ConsentRecord:
    return open_record(record(**FULL))


@pytest.fixture(scope="module")
def withdrawal() -> ConsentRecord:
    return open_record(chain(Action.GRANT, Action.WITHDRAW, attested=True)[-1])


def sorted_terms(terms: Terms) -> tuple[Any, ...]:
    """Terms regardless of the order of their codes, which ODRL does not keep."""
    return (
        sorted(terms.purposes),
        sorted(terms.diseases),
        dict(terms.conditions),
        terms.epsilon_max,
        terms.delta_max,
        terms.valid_until,
        terms.code_hash,
        terms.rounds_max,
    )


def test_fhir_carries_the_record_and_its_terms(grant: ConsentRecord) -> None:
    document = json.loads(json.dumps(to_fhir(grant)))
    resource = Consent.model_validate(document)
    assert (resource.status, resource.decision) == ("active", "deny")  # denied but for the one provision
    assert len(resource.provision) == 1
    assert document["period"] == {"start": "2026-11-21T12:00:00Z", "end": "2027-11-22T12:00:00Z"}
    assert [coding["code"] for coding in document["provision"][0]["purpose"]] == list(FULL["purposes"])
    assert base64.b64decode(document["sourceAttachment"][0]["data"]) == grant.canonical
    assert terms_from_fhir(document) == grant.terms


def test_odrl_carries_the_terms(grant: ConsentRecord) -> None:
    policy = json.loads(json.dumps(to_odrl(grant)))
    assert (policy["assigner"], policy["assignee"]) == (ANNA.public.did, HOSPITAL.public.did)
    assert policy["uid"].startswith("ni:///sha-256;")
    operands = [constraint["leftOperand"] for constraint in policy["permission"][0]["constraint"]]
    assert operands[:3] == ["purpose", "spatial", "accord:data-use"]
    assert terms_from_odrl(policy) == grant.terms


def test_a_withdrawal_permits_nothing_in_any_form(withdrawal: ConsentRecord) -> None:
    fhir = to_fhir(withdrawal)
    assert (fhir["status"], fhir["decision"], "provision" in fhir) == ("inactive", "deny", False)
    policy = to_odrl(withdrawal)
    assert "permission" not in policy
    assert policy["prohibition"][0]["action"] == "use"
    assert to_duo(withdrawal)["dataUse"] == []
    assert to_kantara(withdrawal)["services"] == []
    for reading in (lambda: terms_from_fhir(fhir), lambda: terms_from_odrl(policy)):
        with pytest.raises(ConsentError):
            reading()


def test_duo_codes_have_labels_and_come_back(grant: ConsentRecord) -> None:
    document = json.loads(json.dumps(to_duo(grant, "fr")))
    assert document["dataUse"][0] == {
        "code": "DUO:0000007",
        "iri": "http://purl.obolibrary.org/obo/DUO_0000007",
        "label": "recherche sur une maladie désignée",
        "short": "DS",
        "kind": "permission",
    }
    assert document["dataUse"][2]["values"] == ["FR", "PT"]
    assert document["diseases"][0]["label"] == "maladie du cœur"
    assert consented_from_duo(document) == Consented(FULL["purposes"], FULL["diseases"], CONDITIONS)


def test_a_kantara_receipt_has_every_field(grant: ConsentRecord) -> None:
    receipt = json.loads(json.dumps(to_kantara(grant)))
    assert list(receipt) == [
        "version",
        "jurisdiction",
        "consentTimestamp",
        "collectionMethod",
        "consentReceiptID",
        "publicKey",
        "language",
        "piiPrincipalId",
        "piiControllers",
        "policyUrl",
        "services",
        "sensitive",
        "spiCat",
    ]
    assert receipt["version"] == "KI-CR-v1.1.0"
    assert receipt["consentTimestamp"] == int((NOW - DAY).timestamp())
    assert all(receipt[name] for name in receipt)
    purposes = receipt["services"][0]["purposes"]
    assert [purpose["primaryPurpose"] for purpose in purposes] == [True, False]  # one for each permission
    assert "heart disorder" in purposes[0]["purpose"]
    assert purposes[0]["termination"] == "2027-11-22T12:00:00Z"
    assert to_kantara(grant) == to_kantara(grant)  # the same receipt has the same id


class Page(HTMLParser):
    """A page's tags, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[tuple[str, str | None]] = []
        self.language: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [item for item in attributes if item[0] in {"src", "href", "srcset", "data", "action"}]
        if tag == "html":
            self.language = dict(attributes)["lang"]


@pytest.mark.parametrize(
    ("language", "title"), zip(LANGUAGES, ["You allowed", "Vous avez autorisé", "Autorizou"], strict=True)
)
def test_a_printed_receipt_stands_by_itself(grant: ConsentRecord, language: str, title: str) -> None:
    text = printed(grant, language)
    page = Page(text)
    assert page.language == language
    assert not {"script", "link", "img", "iframe", "form"} & set(page.tags)
    assert page.loads == []
    assert "url(" not in text
    assert "@import" not in text
    assert re.search(f"<h1>{title}", html.unescape(text))
    assert "Hospital &lt;A&gt; &amp; B" in text  # what people wrote is never markup
    assert grant.digest in text.replace(" ", "")
    assert "accord consent verify" in text
    assert "{" not in html.unescape(re.sub(r"(?s)<style>.*?</style>", "", text))


def test_a_printed_withdrawal_names_rounds_and_models(withdrawal: ConsentRecord) -> None:
    receipt = Receipt(
        institution=withdrawal.institution,
        subject_ref="p1",
        subject=withdrawal.subject,
        record=withdrawal.digest,
        action=withdrawal.action,
        seq=withdrawal.seq,
        received_at=format_instant(NOW),
    )
    credential = open_receipt(
        build_receipt(
            receipt,
            withdrawal.canonical,
            HOSPITAL,
            created=NOW,
            rounds_in_flight=[RoundInFlight("heart", 3)],
            models=[ModelMention("heart", 2, "ab" * 32, Decimal(3), Decimal("0.00001"))],
        )
    )
    said = printed(withdrawal, "en", receipt=credential)
    for text in (
        "1 round was under way",
        "Study heart, round 3",
        "epsilon 3, delta 0.00001",
        "ab" * 32,
        "22 November 2026",
    ):
        assert text in said
    assert "Étude heart, tour 3" in html.unescape(printed(withdrawal, "fr", receipt=credential))
    with pytest.raises(ValueError, match="another record"):
        printed(open_record(record()), "en", receipt=credential)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f.clear(),
        lambda f: f.pop("status"),
        lambda f: f.update(decision="permit"),
        lambda f: f.update(provision=f["provision"] * 2),
        lambda f: f["provision"][0].pop("extension"),
        lambda f: f["provision"][0].pop("period"),
        lambda f: f["provision"][0]["purpose"][0].update(system="http://example.org"),
        lambda f: f["provision"][0]["extension"][0].update(valueString="many"),
    ],
)
def test_another_fhir_document_is_refused(grant: ConsentRecord, damage: Any) -> None:
    document = json.loads(json.dumps(to_fhir(grant)))
    damage(document)
    with pytest.raises(ConsentError):
        terms_from_fhir(document)


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.clear(),
        lambda p: p.update(profile="https://example.org"),
        lambda p: p["permission"][0].pop("constraint"),
        lambda p: p["permission"][0]["constraint"].append({"leftOperand": "payAmount", "rightOperand": 1}),
        lambda p: p["permission"][0]["constraint"][0].update(rightOperand=[{"@id": "http://example.org/x"}]),
        lambda p: p["permission"][0]["constraint"].clear(),
    ],
)
def test_another_policy_is_refused(grant: ConsentRecord, damage: Any) -> None:
    policy = json.loads(json.dumps(to_odrl(grant)))
    damage(policy)
    with pytest.raises(ConsentError):
        terms_from_odrl(policy)


@pytest.mark.parametrize("document", [{}, {"dataUse": 3, "diseases": []}, {"dataUse": [{}], "diseases": []}])
def test_another_list_of_codes_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ConsentError):
        consented_from_duo(document)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_terms_come_back(data: st.DataObject) -> None:
    permissions = data.draw(st.lists(st.sampled_from(sorted(PERMISSIONS)), min_size=1, max_size=3, unique=True))
    modifiers = data.draw(st.lists(st.sampled_from(sorted(MODIFIERS)), max_size=4, unique=True))
    named = {
        code: tuple(
            data.draw(
                st.lists(st.sampled_from(["FR", "a b", "2027-01-01", "Ünï"]), min_size=1, max_size=2, unique=True)
            )
        )
        for code in modifiers
        if MODIFIERS[code].values is not None and data.draw(st.booleans())
    }
    changes: dict[str, Any] = {
        "purposes": tuple(permissions + modifiers),
        "diseases": tuple(data.draw(st.lists(st.sampled_from(sorted(BROADER)), max_size=3, unique=True))),
        "conditions": named,
        "epsilon_max": data.draw(st.decimals(Decimal("0.001"), 8, places=3)).normalize(),
        "valid_until": NOW + timedelta(days=data.draw(st.integers(1, 900))),
        "rounds_max": data.draw(st.none() | st.integers(1, 1000)),
        "code_hash": data.draw(st.none() | st.just("ab" * 32)),
    }
    opened = open_record(record(**changes))
    assert opened.terms is not None
    assert terms_from_fhir(json.loads(json.dumps(to_fhir(opened)))) == opened.terms
    assert sorted_terms(terms_from_odrl(json.loads(json.dumps(to_odrl(opened))))) == sorted_terms(opened.terms)
    assert consented_from_duo(to_duo(opened)) == Consented(
        opened.terms.purposes, opened.terms.diseases, dict(opened.terms.conditions)
    )
