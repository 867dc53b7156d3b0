"""A receipt on paper: one HTML page that stands by itself (no script, no request), in the reader's language.

It says in words what was decided and until when, holds the record's digest, and tells how anybody can check it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consent.language import Reader, day, instant, number, purposes, translations
from consent.rules.duo import MODIFIERS, PERMISSIONS, label_of, moment_of
from consent.rules.message import msg
from consent.rules.receipt import ReceiptCredential
from consent.rules.record import Action, ConsentRecord, Terms
from federation.rules.instant import parse_instant

_TEMPLATE: Final = Path(__file__).with_name("templates") / "receipt.html"
_DIGEST_GROUP: Final = 8

_TITLES: Final = {
    Action.GRANT: msg("You allowed the use of your data"),
    Action.REFUSE: msg("You said no to the use of your data"),
    Action.WITHDRAW: msg("You withdrew your consent"),
}
_NAMED: Final = msg("{label}: {values}")
_LIMITS: Final = {
    "epsilon": msg("Privacy loss in one study, at most: epsilon {epsilon}, delta {delta}"),
    "rounds": msg("Rounds of one study, at most: {rounds}"),
    "code": msg("Only this program may compute on the data: {code}"),
    "time": msg("From {begin} until {end}"),
}


@dataclass(frozen=True, slots=True)
class _Page:
    """What the template shows, already in words."""

    title: str
    purposes: Sequence[str]
    restrictions: Sequence[str]
    limits: Sequence[str]
    digest: str
    signed_at: str
    received_at: str | None
    logged: str | None


def printed(record: ConsentRecord, language: str, *, receipt: ReceiptCredential | None = None) -> str:
    """The page, as HTML.

    Args:
        record: the verified record.
        language: one of :data:`consent.language.LANGUAGES`.
        receipt: the institution's receipt for it, if there is one already.

    Raises:
        ValueError: the receipt is for another record, or the language is none of ours (mistakes of the caller).
    """
    from jinja2 import Environment, StrictUndefined

    if receipt is not None and receipt.record.digest != record.digest:
        raise ValueError("the receipt is for another record")
    reader = Reader(language)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, extensions=["jinja2.ext.i18n"], trim_blocks=True, lstrip_blocks=True
    )
    texts = translations(language)
    environment.install_gettext_callables(texts.gettext, texts.ngettext, newstyle=True)  # type: ignore[attr-defined]  # added by the extension
    template = environment.from_string(_TEMPLATE.read_text("utf-8"))
    return template.render(
        language=language,
        page=_page(record, receipt, reader),
        record=record,
        statement=record.statement,
        receipt=receipt,
        number=lambda value: number(value, language),
    )


def _page(record: ConsentRecord, receipt: ReceiptCredential | None, reader: Reader) -> _Page:
    terms, language = record.terms, reader.language
    allowed = () if terms is None else tuple(code for code in terms.purposes if code in PERMISSIONS)
    place = None if receipt is None else receipt.place
    return _Page(
        title=reader.gettext(_TITLES[record.action]),
        purposes=[] if terms is None else [purposes((code,), terms.diseases, language) for code in allowed],
        restrictions=[] if terms is None else _restrictions(terms, reader),
        limits=[] if terms is None else _limits(record, terms, reader),
        digest=" ".join(
            record.digest[start : start + _DIGEST_GROUP] for start in range(0, len(record.digest), _DIGEST_GROUP)
        ),
        signed_at=instant(record.signed_at, language),
        received_at=None if receipt is None else instant(parse_instant(receipt.receipt.received_at), language),
        logged=None if place is None else number(place.index + 1, language),
    )


def _restrictions(terms: Terms, reader: Reader) -> list[str]:
    shown = []
    for code in terms.purposes:
        if code in PERMISSIONS:
            continue
        named = ", ".join(_named(text, reader.language) for text in terms.conditions.get(code, ()))
        label = reader.gettext(label_of(code)) if code in MODIFIERS else code
        shown.append(reader.gettext(_NAMED).format(label=label, values=named) if named else label)
    return shown


def _named(text: str, language: str) -> str:
    moment = moment_of(text)
    return text if moment is None else day(moment, language)


def _limits(record: ConsentRecord, terms: Terms, reader: Reader) -> list[str]:
    language = reader.language
    begin, end = day(record.valid_from, language), day(terms.valid_until, language)
    values = {
        "time": {"begin": begin, "end": end},
        "epsilon": {"epsilon": number(terms.epsilon_max, language), "delta": number(terms.delta_max, language)},
    }
    if terms.rounds_max is not None:
        values["rounds"] = {"rounds": number(terms.rounds_max, language)}
    if terms.code_hash is not None:
        values["code"] = {"code": terms.code_hash}
    return [reader.gettext(_LIMITS[name]).format(**found) for name, found in values.items()]
