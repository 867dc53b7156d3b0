"""What an institution asks: a consent request, in layers and in each reader's language.

A request has an identifier and numbered versions. One version holds every word that a person reads before they decide
(so that the notice's hash covers the text as rendered), the purposes to be answered one by one, and the terms that a
yes carries. A version never changes once it is published; a change is a new version, and people are asked again.
Pure: what is stored and who may change it is decided elsewhere.
"""

import math
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Final

from pydantic import Field, StringConstraints, model_validator

from consent.rules.record import Mechanism
from consent.rules.statement import Term
from federation.rules.canonical import sha256_hex
from federation.rules.wire import Number, Slug, Wire

LANGUAGE_DEFAULT: Final = "en"
LAYERS: Final = ("what", "who", "why", "data", "duration", "privacy", "reward", "withdrawal")
PURPOSES_MAX: Final = 8

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Paragraphs = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,12}:[0-9]{7}$")]
Conditions = Annotated[tuple[Line, ...], Field(min_length=1, max_length=16)]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]


class PurposeWords(Wire):
    """One purpose in one language: a short question's subject, and what it means."""

    title: Line
    explanation: Paragraphs


class AskedPurpose(Wire):
    """One purpose that is answered with yes or no.

    A yes adds ``codes`` (DUO) to the grant, a no adds ``codes_if_no`` (limits such as "not for profit" that hold when
    the person does not want the wider use). ``diseases`` (MONDO) belong to a disease-specific code.
    """

    key: Slug
    codes: Annotated[tuple[Code, ...], Field(max_length=8)] = ()
    codes_if_no: Annotated[tuple[Code, ...], Field(max_length=8)] = ()
    diseases: Annotated[tuple[Code, ...], Field(max_length=16)] = ()
    words: dict[Language, PurposeWords]


class RequestWords(Wire):
    """All that a person reads about a request in one language, layer by layer."""

    title: Line
    what: Paragraphs
    who: Paragraphs
    why: Paragraphs
    data: Paragraphs
    duration: Paragraphs
    privacy: Paragraphs
    reward: Paragraphs
    withdrawal: Paragraphs


class Controller(Wire):
    """Who answers for the data: the institution's name and how to reach its data protection officer."""

    name: Line
    contact: Line


class ConsentRequest(Wire):
    """One version of a request, complete.

    ``epsilon_max`` and ``delta_max`` bound what one study may reveal about a person; ``valid_days`` is how long a yes
    holds; ``data_categories`` are what it is given for, as terms of the Data Privacy Vocabulary; ``conditions`` say
    what a limit among the purposes' codes is about (DUO:0000027, a certain project: which). Every language of
    ``words`` is also there for each purpose.
    """

    mechanism: Mechanism = Mechanism.CONSENT
    controller: Controller
    purposes: Annotated[tuple[AskedPurpose, ...], Field(min_length=1, max_length=PURPOSES_MAX)]
    epsilon_max: Annotated[Number, Field(gt=0, le=8)] = Decimal(3)
    delta_max: Annotated[Number, Field(gt=0, le=Decimal("1e-5"))] = Decimal("0.00001")
    valid_days: Annotated[int, Field(ge=1, le=36500)] = 365
    data_categories: Annotated[tuple[Term, ...], Field(min_length=1, max_length=12)] = ("pd:MedicalHealth",)
    conditions: dict[Code, Conditions] = Field(default_factory=dict)
    words: Annotated[dict[Language, RequestWords], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> "ConsentRequest":
        keys = [purpose.key for purpose in self.purposes]
        if len(set(keys)) != len(keys):
            raise ValueError("two purposes have the same key")
        known = {code for purpose in self.purposes for code in (*purpose.codes, *purpose.codes_if_no)}
        if not set(self.conditions) <= known:
            raise ValueError("a condition belongs to no code of a purpose")
        if not any(purpose.codes for purpose in self.purposes):
            raise ValueError("at least one purpose must allow something")
        for purpose in self.purposes:
            missing = set(self.words) - set(purpose.words)
            if missing:
                raise ValueError(f"purpose {purpose.key} has no words in {', '.join(sorted(missing))}")
        return self

    @property
    def lasts(self) -> timedelta:
        """How long a yes holds."""
        return timedelta(days=self.valid_days)

    def language(self, wanted: str) -> str:
        """The language to show: the reader's if it is there, else English, else the first."""
        for language in (wanted, LANGUAGE_DEFAULT):
            if language in self.words:
                return language
        return min(self.words)

    def granted(self, choices: Mapping[str, bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The DUO codes and the diseases of a grant with these answers; no codes at all if it is a refusal.

        Args:
            choices: an answer for every purpose.

        Raises:
            ValueError: a purpose has no answer, or an answer has no purpose.
        """
        if set(choices) != {purpose.key for purpose in self.purposes}:
            raise ValueError("every purpose needs an answer, and nothing else has one")
        yes = [purpose for purpose in self.purposes if choices[purpose.key]]
        allowed = [code for purpose in yes for code in purpose.codes]
        if not allowed:
            return (), ()
        limits = [code for purpose in self.purposes if not choices[purpose.key] for code in purpose.codes_if_no]
        diseases = [code for purpose in yes for code in purpose.diseases]
        return tuple(dict.fromkeys(allowed + limits)), tuple(dict.fromkeys(diseases))


def notice_text(request: ConsentRequest, language: str) -> str:
    """The notice as one plain text, everything that the person was shown: what its hash covers."""
    words = request.words[language]
    parts = [words.title, *(getattr(words, layer) for layer in LAYERS)]
    for number, purpose in enumerate(request.purposes, start=1):
        said = purpose.words[language]
        parts.append(f"{number}. {said.title}\n{said.explanation}")
    parts.append(f"{request.controller.name}\n{request.controller.contact}")
    return "\n\n".join(part.replace("\r\n", "\n") for part in parts) + "\n"


def notice_hash(request: ConsentRequest, language: str) -> str:
    """SHA-256 of :func:`notice_text` in UTF-8, hexadecimal."""
    return sha256_hex(notice_text(request, language).encode("utf-8"))


def right_guesses_max(epsilon: Decimal, delta: Decimal) -> int:
    """Of 100 guesses whether a person took part, made from all that leaves the institution: at most so many are right.

    Without any knowledge 50 are. The bound for two equally likely cases is (e^epsilon + delta) / (1 + e^epsilon)
    (Kairouz, Oh, Viswanath 2015, theorem 2.1), rounded up.
    """
    odds = math.exp(epsilon)
    return min(100, math.ceil(100 * (odds + float(delta)) / (1 + odds)))
