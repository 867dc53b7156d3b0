"""Decisions, days, moments and numbers as one reader reads them."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

from babel.dates import format_date, format_time
from babel.numbers import format_decimal

from consent.language.catalogs import TERRITORIES, translations
from consent.rules.decision import NOT_PERMITTED, PERMITTED_UNTIL, Decision
from consent.rules.diseases import NAMES
from consent.rules.message import msg
from consent.rules.reasons import ALSO, TEXTS, joined, phrase, purposes_in
from federation.rules.instant import parse_instant

_MOMENT: Final = msg("{day}, {time} UTC")


class Reader:
    """How one language says what a decision says (:class:`consent.rules.reasons.Speech`).

    Args:
        language: one of :data:`consent.language.LANGUAGES`.

    Raises:
        ValueError: it is not one of them.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = translations(language)

    def gettext(self, message: str) -> str:
        """The translation of a text."""
        return str(self._texts.gettext(message))

    def instant(self, text: str) -> str:
        """An instant of :mod:`federation.rules.instant`, for readers."""
        return instant(parse_instant(text), self.language)

    def number(self, text: str) -> str:
        """A plain decimal, for readers."""
        return number(Decimal(text), self.language)

    def disease(self, code: str) -> str:
        """The name of a disease of the table; any other by its code."""
        name = NAMES.get(code)
        return code if name is None else self.gettext(name)


def sentence(decision: Decision, language: str) -> str:
    """A decision in one sentence, in one of :data:`consent.language.LANGUAGES`."""
    reader = Reader(language)
    if decision.permitted:
        until = "" if decision.until is None else instant(decision.until, language)
        return reader.gettext(PERMITTED_UNTIL).format(until=until)
    reasons = [
        phrase(given.code, given.values, reader) if _known(given.code) else given.text for given in decision.reasons
    ]
    return reader.gettext(NOT_PERMITTED).format(because=joined(reasons, ALSO, reader))


def purposes(codes: tuple[str, ...], diseases: tuple[str, ...], language: str) -> str:
    """DUO codes as a reader would say them, with the diseases' names."""
    return purposes_in(" ".join(codes), " ".join(diseases), Reader(language))


def day(moment: datetime | date, language: str) -> str:
    """The day, in words ("5 November 2026"); a moment's day is that of UTC."""
    shown = moment.astimezone(UTC).date() if isinstance(moment, datetime) else moment
    return format_date(shown, "long", locale=TERRITORIES[language])


def instant(moment: datetime, language: str) -> str:
    """A moment to the minute, with its day in words, in UTC.

    Raises:
        ValueError: the moment has no time zone (a mistake of the caller).
    """
    if moment.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    shown = moment.astimezone(UTC)
    time = format_time(shown.time(), "short", locale=TERRITORIES[language])
    return str(translations(language).gettext(_MOMENT)).format(day=day(shown, language), time=time)


def number(value: Decimal | int, language: str) -> str:
    """A number with all of its digits, grouped and pointed as the language does."""
    return format_decimal(value, locale=TERRITORIES[language], decimal_quantization=False)


def _known(code: str) -> bool:
    return code in TEXTS or any(name.startswith(f"{code}.") for name in TEXTS)
