"""Why a decision is a no: a code and values for machines, and a sentence template for people, one for each.

A :class:`Reason` carries no prose of its own that could say something else than its code and values: its text is made
from them by :func:`phrase`. Here they are put in plain English, with exact instants; :mod:`consent.language` puts the
same reasons in the reader's language, with that language's plurals, dates and numbers. A sentence has no full stop and
reads after "because".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from consent.rules.duo import DISEASE_RESEARCH, label_of
from consent.rules.message import msg


class Speech(Protocol):
    """A language: its texts, and how it writes instants and numbers (``federation.rules.instant``, plain decimals)."""

    def gettext(self, message: str) -> str:
        """The translation of a text."""
        ...

    def instant(self, text: str) -> str:
        """An instant for readers."""
        ...

    def number(self, text: str) -> str:
        """A decimal number for readers."""
        ...

    def disease(self, code: str) -> str:
        """A disease's name for readers."""
        ...


class PlainEnglish:
    """English for logs and command lines: instants and numbers exactly as they travel."""

    def gettext(self, message: str) -> str:
        """The text itself."""
        return message

    def instant(self, text: str) -> str:
        """The text itself."""
        return text

    def number(self, text: str) -> str:
        """The text itself."""
        return text

    def disease(self, code: str) -> str:
        """The code itself."""
        return code


PLAIN: Final[Speech] = PlainEnglish()


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: ``code`` and ``values`` for machines, ``text`` for people (no full stop, reads after "because")."""

    code: str
    text: str
    values: Mapping[str, str] = field(default_factory=dict, hash=False)


# Reason code, or code and what it is about -> the sentence.
TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": msg("there is no consent record"),
        "unverified": msg("a record cannot be verified"),
        "rolled_back": msg("the newest record is not the one that was last acknowledged"),
        "gap": msg("record {expected} of the chain is missing (found number {found})"),
        "replayed": msg("a record of the chain stands there twice"),
        "two_institutions": msg("the chain mixes records for two institutions"),
        "wrong_prev": msg("record {seq} does not continue the record before it"),
        "two_subjects": msg("the chain mixes records of two people"),
        "two_mechanisms": msg("the chain mixes two kinds of record"),
        "other_institution": msg("the record was given to another institution"),
        "other_mechanism": msg("the study needs another kind of record ({kind_asked}) than this one ({kind_given})"),
        "withdrawn": msg("the person withdrew on {at}"),
        "withdrawn.attested": msg("the institution withdrew at the person's request on {at}"),
        "refused": msg("the person said no on {at}"),
        "opted_out": msg("the person opted out of secondary use on {at}"),
        "pending": msg("the consent still waits for its witnesses"),
        "not_yet_valid": msg("the consent begins on {at}"),
        "expired": msg("the consent ended on {at}"),
        "majority": msg("the person came of age on {at} and has not decided yet"),
        "stale": msg("the witnesses have not confirmed the consent log for too long"),
        "notice": msg("the information that the consent was given on has changed since"),
        "purpose": msg("the consent allows {allowed_purposes}, the study is {asked_purpose}"),
        "epsilon": msg("the consent allows epsilon {allowed}, the study asks {asked}"),
        "delta": msg("the consent allows delta {allowed}, the study asks {asked}"),
        "code": msg("the consent allows one program only, and the study does not run just that one"),
        "rounds": msg("the consent sets a limit of rounds ({allowed}), the study has more ({asked})"),
        "rounds_unknown": msg("the consent limits the rounds, and the study does not say how many it has"),
        "modifier.RS": msg("the consent allows only these types of research: {allowed_values}"),
        "modifier.NMDS": msg("the consent excludes research that develops general methods"),
        "modifier.GSO": msg("the consent is for genetic studies only, and the study is none"),
        "modifier.NPUNCU": msg("the consent allows only not-for-profit organisations and no commercial use"),
        "modifier.GS": msg("the consent allows use only in these countries: {allowed_values}"),
        "modifier.MOR": msg("nothing may be published before {day}, and the study publishes earlier"),
        "modifier.TS": msg("the consent allowed use only until {day}"),
        "modifier.US": msg("the consent allows only these users: {allowed_values}"),
        "modifier.PS": msg("the consent allows only these projects: {allowed_values}"),
        "modifier.IS": msg("the consent allows use only in these institutions: {allowed_values}"),
        "modifier.NPOA": msg("the consent excludes research on population origins or ancestry"),
        "modifier.POA": msg(
            "the study is also about population origins or ancestry, and the consent does not allow that"
        ),
        "modifier.NPU": msg("the consent allows only not-for-profit organisations"),
        "modifier.NCU": msg("the consent excludes commercial use"),
        "modifier.CC": msg("the study is also for clinical care, and the consent does not allow that"),
        "needs_person.unknown": msg("a person has to judge {codes}: Accord does not decide this by itself"),
        "needs_person.disease": msg("a person has to judge it: the study does not name its disease"),
        "needs_person.unclear": msg("a person has to judge “{restriction}”: the consent does not say which"),
        "needs_person.RS": msg(
            "the consent allows only these types of research: {allowed_values}; the study names none"
        ),
        "needs_person.NMDS": msg(
            "the study does not say whether it develops general methods, which the consent excludes"
        ),
        "needs_person.GSO": msg("a person has to judge whether it is a genetic study"),
        "needs_person.NPUNCU": msg(
            "the consent allows only not-for-profit organisations and no commercial use; the study does not say"
        ),
        "needs_person.PUB": msg("a person has to judge whether the results will be made public"),
        "needs_person.COL": msg("a person has to judge whether the original investigators take part"),
        "needs_person.IRB": msg("a person has to judge the ethics approval; the study names none"),
        "needs_person.approvals": msg("a person has to judge the ethics approval ({approvals})"),
        "needs_person.GS": msg(
            "the consent allows use only in these countries: {allowed_values}; the study names none"
        ),
        "needs_person.MOR": msg("nothing may be published before {day}; the study does not say when it publishes"),
        "needs_person.US": msg("the consent allows only these users: {allowed_values}; the study names none"),
        "needs_person.PS": msg("the consent allows only these projects: {allowed_values}; the study names none"),
        "needs_person.IS": msg(
            "the consent allows use only in these institutions: {allowed_values}; the study names none"
        ),
        "needs_person.RTN": msg("a person has to judge whether the results will be returned"),
        "needs_person.NPOA": msg(
            "the study does not say whether it is about population origins or ancestry, which the consent excludes"
        ),
        "needs_person.NPU": msg("the consent allows only not-for-profit organisations; the study does not say"),
        "needs_person.NCU": msg("the consent excludes commercial use; the study does not say"),
    }
)

MECHANISMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "consent": msg("consent"),
        "licence": msg("licence"),
        "dpa": msg("data processing agreement"),
        "hipaa-authorization": msg("HIPAA authorization"),
        "ehds-permit": msg("data permit"),
        "ehds-optout": msg("opt-out"),
    }
)

AND: Final = msg("{one} and {other}")
ALSO: Final = msg("{one}; {other}")
NOTHING: Final = msg("nothing")


def reason(code: str, /, **values: str) -> Reason:
    """A reason with its text in plain English."""
    return Reason(code, phrase(code, values), values)


def phrase(code: str, values: Mapping[str, str], speech: Speech = PLAIN) -> str:
    """The sentence of a reason in a language.

    Raises:
        KeyError: the code is unknown or a value is missing (a mistake of the caller).
    """
    template = TEXTS.get(f"{code}.{values['about']}" if "about" in values else code) or TEXTS[code]
    shown = {name: _SHOWN.get(name, _as_it_is)(text, values, speech) for name, text in values.items()}
    return speech.gettext(template).format_map(shown)


def purposes_in(codes: str, diseases: str, speech: Speech) -> str:
    """DUO codes (parted by spaces) in a language, with the diseases' names where they matter."""
    names = ", ".join(speech.disease(code) for code in diseases.split())
    words = [
        speech.gettext(label_of(code)) + (f" ({names})" if code == DISEASE_RESEARCH and names else "")
        for code in codes.split()
    ]
    return joined(words, AND, speech) if words else speech.gettext(NOTHING)


def joined(parts: Sequence[str], pattern: str, speech: Speech) -> str:
    """At least one text, each put to the one before by a pattern with ``{one}`` and ``{other}``."""
    text = parts[0]
    for part in parts[1:]:
        text = speech.gettext(pattern).format(one=text, other=part)
    return text


_Show = Callable[[str, Mapping[str, str], Speech], str]


def _as_it_is(text: str, _values: Mapping[str, str], _speech: Speech) -> str:
    return text


def _instant(text: str, _values: Mapping[str, str], speech: Speech) -> str:
    return speech.instant(text)


def _number(text: str, _values: Mapping[str, str], speech: Speech) -> str:
    return speech.number(text)


def _label(text: str, _values: Mapping[str, str], speech: Speech) -> str:
    return speech.gettext(label_of(text))


def _kind(text: str, _values: Mapping[str, str], speech: Speech) -> str:
    return speech.gettext(MECHANISMS.get(text, text))


def _allowed(text: str, values: Mapping[str, str], speech: Speech) -> str:
    return purposes_in(text, values.get("diseases", ""), speech)


def _asked(text: str, values: Mapping[str, str], speech: Speech) -> str:
    return purposes_in(text, values.get("disease", ""), speech)


# How a value is shown, by its name.
_SHOWN: Final[Mapping[str, _Show]] = MappingProxyType(
    {
        "at": _instant,
        "day": _instant,
        "until": _instant,
        "allowed": _number,
        "asked": _number,
        "seq": _number,
        "expected": _number,
        "found": _number,
        "restriction": _label,
        "kind_asked": _kind,
        "kind_given": _kind,
        "allowed_purposes": _allowed,
        "asked_purpose": _asked,
    }
)
