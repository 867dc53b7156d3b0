"""Every message is in every catalog, translated, with its placeholders; readers get their own dates and numbers."""

import re
import string
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po
from consent_people import NOW, chain, record, use
from hypothesis import given
from hypothesis import strategies as st

from consent.language import LANGUAGES, Reader, day, instant, negotiate, number, purposes, sentence, translations
from consent.language.catalogs import catalog_file
from consent.language.messages import extract
from consent.rules.decision import Decision, Head, NoticePolicy, Status, permits
from consent.rules.diseases import NAMES
from consent.rules.duo import MODIFIERS, PERMISSIONS, Declared
from consent.rules.purposes import Consented, Wanted, judge
from consent.rules.reasons import MECHANISMS, TEXTS, Reason, phrase
from consent.rules.record import Action, Mechanism

TRANSLATED = [language for language in LANGUAGES if language != "en"]
PERCENT = re.compile(r"%\((\w+)\)s")


@pytest.fixture(scope="module")
def messages() -> Catalog:
    return extract()


def catalog(language: str) -> Catalog:
    with catalog_file(language).open("rb") as file:
        return read_po(file, locale=language)


def placeholders(text: str) -> set[str]:
    """What a text fills in: ``{name}`` and ``%(name)s``."""
    try:
        braces = {name for _, name, _, _ in string.Formatter().parse(text) if name}
    except ValueError:
        braces = set()
    return braces | set(PERCENT.findall(text))


def faults(messages: Catalog, translated: Catalog) -> Iterator[str]:
    for message in messages:
        if not message.id:
            continue
        found = translated.get(message.id, message.context)
        if found is None:
            yield f"missing: {message.id!r}"
        elif found.fuzzy:
            yield f"fuzzy: {message.id!r}"
        else:
            yield from _faults_of(message, found)
    known = {message.id for message in messages}
    yield from (f"of no use: {message.id!r}" for message in translated if message.id and message.id not in known)


def _faults_of(message: Message, found: Message) -> Iterator[str]:
    forms = [found.string] if isinstance(found.string, str) else list(found.string)
    ids = [message.id] if isinstance(message.id, str) else list(message.id)
    if not all(form.strip() for form in forms) or len(forms) != len(ids):
        yield f"not translated: {message.id!r}"
        return
    allowed = set().union(*map(placeholders, ids))
    # A singular may leave its number out ("one round"); nothing may name what is not there.
    if placeholders(forms[-1]) != placeholders(ids[-1]) or any(placeholders(form) - allowed for form in forms):
        yield f"other placeholders: {message.id!r} and {forms!r}"


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_message_is_translated(messages: Catalog, language: str) -> None:
    assert len(messages) > 300
    assert list(faults(messages, catalog(language))) == []


def test_what_the_check_finds() -> None:
    asked, given_ = Catalog(locale="fr"), Catalog(locale="fr")
    for text in ("gone", "empty", "doubtful", "{a} and %(b)s", "fine {a}"):
        asked.add(text)
    asked.add(("one", "%(n)s"))
    given_.add("empty", "")
    given_.add("doubtful", "douteux", flags={"fuzzy"})
    given_.add("{a} and %(b)s", "{a} et %(c)s")
    given_.add("fine {a}", "bien {a}")
    given_.add(("one", "%(n)s"), ("un", "plusieurs"))
    given_.add("nobody asks", "personne")
    found = [fault.split(":")[0] for fault in faults(asked, given_)]
    assert found == ["missing", "not translated", "fuzzy", "other placeholders", "other placeholders", "of no use"]


def test_the_rules_texts_are_extracted(messages: Catalog) -> None:
    for text in (*TEXTS.values(), *MECHANISMS.values(), *NAMES.values()):
        assert messages.get(text) is not None
    for known in (*PERMISSIONS.values(), *MODIFIERS.values()):
        assert messages.get(known.label) is not None


@pytest.mark.parametrize(
    ("header", "cookie", "expected"),
    [
        (None, None, "en"),
        ("pt-PT,pt;q=0.9,en;q=0.8", None, "pt"),
        ("de, en;q=0.5, fr;q=0.6", None, "fr"),
        ("fr;q=0, en;q=0.1", None, "en"),
        ("FR-ca", None, "fr"),
        ("fr;q=2, pt;q=x, *;q=0.5", None, "en"),
        ("pt", "fr", "fr"),
        ("pt", "klingon", "pt"),
        (";;;,,,=", None, "en"),
    ],
)
def test_the_language_is_negotiated(header: str | None, cookie: str | None, expected: str) -> None:
    assert negotiate(header, cookie) == expected


@given(st.text(max_size=60), st.none() | st.text(max_size=5))
def test_any_header_gives_a_language(header: str, cookie: str | None) -> None:
    assert negotiate(header, cookie) in LANGUAGES


def test_an_unknown_language_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="none of"):
        translations("de")


def test_days_moments_and_numbers() -> None:
    moment = datetime(2026, 11, 5, 23, 7, 59, tzinfo=timezone(timedelta(hours=-3)))
    assert [day(moment, language) for language in LANGUAGES] == [
        "6 November 2026",
        "6 novembre 2026",
        "6 de novembro de 2026",
    ]
    assert day(date(2026, 1, 2), "fr") == "2 janvier 2026"
    assert [instant(moment, language) for language in LANGUAGES] == [
        "6 November 2026, 02:07 UTC",
        "6 novembre 2026 à 02:07 UTC",
        "6 de novembro de 2026 às 02:07 UTC",
    ]
    assert [
        number(Decimal("12345.00001"), language).replace("\u202f", " ").replace("\u00a0", " ") for language in LANGUAGES
    ] == [
        "12,345.00001",
        "12 345,00001",
        "12 345,00001",
    ]
    with pytest.raises(ValueError, match="time zone"):
        instant(moment.replace(tzinfo=None), "en")


def test_plurals_follow_the_language() -> None:
    one, many = (
        "%(shown)s round was under way when your decision arrived. It is the last one.",
        "%(shown)s rounds were under way when your decision arrived. They are the last ones.",
    )
    said = {
        language: [translations(language).ngettext(one, many, count) for count in (0, 1, 2)] for language in LANGUAGES
    }
    assert said["en"] == [many, one, many]
    assert said["fr"][0] == said["fr"][1] != said["fr"][2]  # French counts nought as one
    assert said["pt"][1] != said["pt"][2]


def test_a_decision_in_the_readers_language() -> None:
    yes = permits(chain(Action.GRANT), use(), NOW)
    assert [sentence(yes, language) for language in LANGUAGES] == [
        "Permitted until 22 November 2027, 12:00 UTC.",
        "Autorisé jusqu'au 22 novembre 2027 à 12:00 UTC.",
        "Permitido até 22 de novembro de 2027 às 12:00 UTC.",
    ]
    consent = record(purposes=("DUO:0000007", "DUO:0000011"), diseases=("MONDO:0005267", "MONDO:0007254"))
    no = permits([consent], use(duo="DUO:0000006", disease=None, epsilon=Decimal("3.5")), NOW)
    assert sentence(no, "fr").replace("\u00a0", " ").replace("\u202f", " ") == (
        "Non autorisé : le consentement autorise : recherche sur une maladie désignée (maladie du cœur, cancer du sein)"
        " et recherche sur les origines ou l'ascendance des populations ; l'étude demande : recherche en santé,"
        " médicale ou biomédicale ; le consentement autorise epsilon 3, l'étude demande 3,5."
    )
    assert sentence(permits(chain(Action.GRANT, Action.WITHDRAW, attested=True), use(), NOW), "pt") == (
        "Não permitido: a instituição retirou o consentimento a pedido da pessoa em"
        " 21 de novembro de 2026 às 12:00 UTC."
    )


def test_a_reason_that_is_not_known_is_told_as_it_came() -> None:
    strange = Decision(permitted=False, status=Status.INVALID, reasons=(Reason("strange", "it is odd"),), sentence="")
    assert sentence(strange, "fr").endswith("it is odd.")


def test_purposes_in_words() -> None:
    assert purposes((), (), "pt") == "nada"
    assert purposes(("DUO:0000007",), ("MONDO:9999999",), "en") == "research on a named disease (MONDO:9999999)"
    assert Reader("fr").disease("MONDO:0005010") == "maladie coronarienne"


def _every_no() -> Iterator[Decision]:
    yield permits((), use(), NOW)
    yield permits((), use(), NOW, head=Head(1, "0" * 64))
    yield permits([b"{}"], use(), NOW)
    yield permits(chain(Action.REFUSE), use(), NOW)
    yield permits(chain(Action.GRANT, Action.WITHDRAW)[1:], use(), NOW)
    yield permits(chain(Action.GRANT), use(kind=Mechanism.LICENCE), NOW)
    yield permits(chain(Action.GRANT), use(), NOW, binding=lambda _: False)
    yield permits(chain(Action.GRANT), use(), NOW, notices=NoticePolicy(known=frozenset()))
    yield permits([record(rounds_max=1, code_hash="a" * 64)], use(rounds=2, delta=Decimal(1)), NOW)


def test_every_no_is_said_in_every_language() -> None:
    for decision in _every_no():
        said = {sentence(decision, language) for language in LANGUAGES}
        assert len(said) == len(LANGUAGES)
        assert not any("{" in text or "  " in text for text in said)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_finding_has_a_sentence(language: str) -> None:
    studies = [Declared(), Declared(approvals=("A",))] + [
        Declared(
            commercial=flag, organisation="for-profit", countries=("US",), methods_development=flag, ancestry=flag,
            genetic=not flag, clinical_care=flag, research_types=("x",), institutions=("x",), users=("x",), project="x",
            publication_from=NOW,
        )
        for flag in (True, False)
    ]  # fmt: skip
    for code, modifier in MODIFIERS.items():
        value = ("2027-01-01" if modifier.values == "a day" else "y",)
        for values in ((), value, ("2020-01-01",)):
            for study in studies:
                conditions = {code: values} if values else {}
                for duo in ("DUO:0000006", "DUO:0000007", "DUO:0000099"):
                    for finding in judge(
                        Consented(("DUO:0000006", code), (), conditions), Wanted(duo, None, study), NOW
                    ):
                        assert phrase(finding.code, finding.values, Reader(language))


def test_instants_are_read_as_they_travel() -> None:
    assert Reader("en").instant("2026-11-22T00:10:00Z") == "22 November 2026, 00:10 UTC"
    assert datetime(2026, 11, 22, tzinfo=UTC).tzinfo is UTC
