"""What a person was told and agreed to, in the terms of ISO/IEC TS 27560 and the W3C Data Privacy Vocabulary (DPV) 2.

Source: "Consent Records and Receipts as per ISO/IEC TS 27560:2023 using DPV" (DPVCG, final report of 2024-08-01) with
its fields for the GDPR. One class is both the value and the form on the wire: the names in the JSON document are the
fields' names in camel case, and the shipped JSON-LD context (``consent/rules/schema``) says which DPV property each is.
Codes are compact IRIs (``dpv:ScientificResearch``, ``eu-gdpr:A6-1-a``); free text is for people.

The classes keep no rule beyond form and bounds: what a statement has to say for a kind of record is decided in
:mod:`consent.rules.record`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter, WithJsonSchema
from pydantic.alias_generators import to_camel

from consent.rules.signature import check_did
from federation.rules.canonical import sha256_hex

TEXT_CHARACTERS_MAX: Final = 400
_LIST_MAX: Final = 24

STRICT: Final = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, validate_by_name=False)
"""Strict: the canonical bytes are what was signed, so a value is read as it stands or not at all."""

Did = Annotated[
    str, AfterValidator(check_did), WithJsonSchema({"type": "string", "pattern": "^did:key:z6Mk[1-9A-HJ-NP-Za-km-z]+$"})
]
Words = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
Term = Annotated[str, StringConstraints(pattern=r"^(dpv|pd|loc|eu-gdpr):[A-Za-z0-9][A-Za-z0-9-]{0,79}$")]
Terms_ = Annotated[tuple[Term, ...], Field(min_length=1, max_length=_LIST_MAX)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
LanguageTag = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]
Period = Annotated[str, StringConstraints(pattern=r"^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,5}D)?$", min_length=3)]


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody who is named: a controller, a recipient, an authority. ``id`` is a did:key, if they have one."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: Words
    contact: Words | None = None
    id: Did | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the data stays, and for how long after the consent began (ISO 8601: ``P10Y``)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    location: Term
    duration: Period


@dataclass(frozen=True, slots=True)
class Notice:
    """Which text was read: the SHA-256 of its bytes as rendered, its version and its language (BCP 47)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    hash: Digest
    version: Words
    language: LanguageTag


STANDARD_NOTICE: Final = (
    "Your data stays with the institution that holds it. Studies that fit the purposes you choose may compute on it"
    " there; only results protected by differential privacy leave, within the privacy limit you set. You may withdraw"
    " at any time, without a reason and without disadvantage; from the next round of every study on, your data is no"
    " longer used. Results that were already computed stay. You may ask what is stored about you, have it corrected,"
    " restricted or erased, take it with you, and complain to the data protection authority."
)
"""What a statement refers to where the institution names no notice of its own (command line and demonstrations)."""


def notice_of(text: str | bytes, *, version: str, language: str) -> Notice:
    """The notice for a text as it was shown (a text is hashed as UTF-8)."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    return Notice(hash=sha256_hex(data), version=version, language=language)


@dataclass(frozen=True, slots=True)
class Statement:
    """The content of a consent record beyond Accord's own terms; every grant carries one.

    ``controller``, ``recipients`` and ``authority`` are parties; ``jurisdiction`` a place (``loc:EU``, ``loc:FR``);
    ``legal_basis``, ``purposes``, ``data_categories``, ``processing`` and ``rights`` are DPV terms;
    ``withdrawal_method`` says in words, or by a link, how to withdraw; ``type`` is a consent record, or the record of
    processing that rests on something else.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    controller: Party
    jurisdiction: Term
    legal_basis: Terms_
    purposes: Terms_
    data_categories: Terms_
    processing: Terms_
    recipients: Annotated[tuple[Party, ...], Field(min_length=1, max_length=_LIST_MAX)]
    storage: Storage
    rights: Terms_
    authority: Party
    notice: Notice
    withdrawal_method: Words
    type: Literal["dpv:ConsentRecord", "dpv:DataProcessingRecord"] = "dpv:ConsentRecord"

    @classmethod
    def for_institution(
        cls,
        did: str,
        *,
        name: str = "The institution that holds the data",
        contact: str | None = None,
        jurisdiction: str = "loc:EU",
        legal_basis: tuple[str, ...] = ("eu-gdpr:A6-1-a", "eu-gdpr:A9-2-a"),
        notice: Notice | None = None,
        data_categories: tuple[str, ...] = ("pd:MedicalHealth",),
        consent: bool = True,
    ) -> "Statement":
        """What holds for every study that Accord runs, told by the institution ``did``.

        The data stays where it is, results leave under differential privacy, and withdrawing needs no key.
        """
        return cls(
            controller=Party(name=name, contact=contact, id=did),
            jurisdiction=jurisdiction,
            legal_basis=legal_basis,
            purposes=("dpv:ScientificResearch",),
            data_categories=data_categories,
            processing=("dpv:Analyse",),
            recipients=(Party(name="The members of the studies: they receive results, never the data"),),
            storage=Storage(location="dpv:LocalLocation", duration="P10Y"),
            rights=RIGHTS,
            authority=Party(
                name="The data protection authority where you live",
                contact="https://www.edpb.europa.eu/about-edpb/about-edpb/members_en",
            ),
            notice=notice or notice_of(STANDARD_NOTICE, version="1", language="en"),
            withdrawal_method="On the consent page, or by telling the institution; no key is needed",
            type="dpv:ConsentRecord" if consent else "dpv:DataProcessingRecord",
        )

    def to_document(self) -> dict[str, Any]:
        """The statement as it stands in a record."""
        return to_document(_STATEMENT, self)


RIGHTS: Final = (
    "eu-gdpr:A7-3",
    "eu-gdpr:A15",
    "eu-gdpr:A16",
    "eu-gdpr:A17",
    "eu-gdpr:A18",
    "eu-gdpr:A20",
    "eu-gdpr:A77",
)
"""To withdraw, to see, correct, erase, restrict and take along one's data, and to complain."""


@dataclass(frozen=True, slots=True)
class HipaaAuthorization:
    """What an authorization under HIPAA has to say (45 CFR 164.508(c)), beyond the signature and its date.

    Core elements (c)(1): ``information`` (i), ``discloser`` (ii), ``recipients`` (iii), ``purpose`` (iv) and
    ``expiration`` (v: a date or an event; the record's ``validUntil`` ends it in any case). Element (vi), signature and
    date, is the record's proof; the authority of a personal representative is the record's ``authority``. Required
    statements (c)(2): ``right_to_revoke`` (i), ``conditioning`` (ii) and ``redisclosure`` (iii).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    information: Words
    discloser: Party
    recipients: Annotated[tuple[Party, ...], Field(min_length=1, max_length=_LIST_MAX)]
    purpose: Words
    expiration: Words
    right_to_revoke: Words
    conditioning: Words
    redisclosure: Words


@dataclass(frozen=True, slots=True)
class DataPermit:
    """A data permit of the European Health Data Space (Regulation (EU) 2025/327, Article 68).

    ``number`` as the health data access body issued it, that body, and the health data user it was issued to.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    number: Words
    body: Party
    user: Party


_STATEMENT: Final = TypeAdapter(Statement)
_HIPAA: Final = TypeAdapter(HipaaAuthorization)
_PERMIT: Final = TypeAdapter(DataPermit)


def hipaa_document(authorization: HipaaAuthorization) -> dict[str, Any]:
    """The authorization as it stands in a record."""
    return to_document(_HIPAA, authorization)


def permit_document(permit: DataPermit) -> dict[str, Any]:
    """The permit as it stands in a record."""
    return to_document(_PERMIT, permit)


def to_document(adapter: TypeAdapter[Any], value: object) -> dict[str, Any]:
    """A value as JSON types, in camel case and without nulls."""
    document: dict[str, Any] = adapter.dump_python(value, mode="json", by_alias=True, exclude_none=True)
    return document
