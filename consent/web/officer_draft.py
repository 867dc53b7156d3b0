"""Drafting a request: from a few answers, or from a study's plan, to every word that a person will read.

An officer says what is asked, by whom, for how long, at which privacy loss; this module writes the notice's layers in
each language from the catalogs, and the officer changes what they like before it is published. What is drafted says
only what Accord does; what an institution promises beyond (storage elsewhere, other uses) it has to write itself.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from gettext import NullTranslations
from types import MappingProxyType
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, StringConstraints, model_validator

from consent.language import number
from consent.rules.duo import DISEASE_RESEARCH
from consent.rules.record import Mechanism
from consent.web.officer_owner import owner_words
from consent.web.request import (
    AskedPurpose,
    Code,
    ConsentRequest,
    Controller,
    Language,
    Line,
    Paragraphs,
    PurposeWords,
    RequestWords,
    right_guesses_max,
)
from federation.rules.study import StudyPlan
from federation.rules.wire import Number, Slug, Wire, plain_decimal

NON_PROFIT: Final = "DUO:0000018"
ONE_PROJECT: Final = "DUO:0000027"

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=120)]
Permission = Literal["DUO:0000004", "DUO:0000042", "DUO:0000006", "DUO:0000007", "DUO:0000011"]
Category = Literal[
    "diagnoses", "measurements", "treatments", "laboratory", "imaging", "genetic", "lifestyle", "age_sex", "device"
]
PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)
CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)


# What each category is called in a record: terms of the Data Privacy Vocabulary's extension PD (release 2.2).
TERMS: Final[Mapping[Category, tuple[str, ...]]] = MappingProxyType(
    {
        "diagnoses": ("pd:HealthHistory",),
        "measurements": ("pd:PhysicalHealth",),
        "treatments": ("pd:HealthRecord",),
        "laboratory": ("pd:HealthRecord",),
        "imaging": ("pd:HealthRecord",),
        "genetic": ("pd:Genetic",),
        "lifestyle": ("pd:Behavioral",),
        "age_sex": ("pd:Age", "pd:Gender"),
        "device": ("pd:DeviceBased",),
    }
)


class OwnWords(Wire):
    """What only the officer can say, in one language. ``disease``: its name, where the research is on one."""

    title: Title
    why: Paragraphs
    disease: Annotated[str, StringConstraints(strip_whitespace=True, max_length=120)] = ""


class Outline(Wire):
    """The few answers that a draft is made from; ``name`` identifies the request, ``words`` has each language's own.

    ``mechanism`` says who decides: each person, or the owner of a whole source (devices).
    ``only_study`` is the identifier of the one study that a yes is for; empty: any study that fits.
    """

    name: Slug
    controller: Line
    contact: Line
    sponsor: Line
    mechanism: Literal["consent", "licence"] = "consent"
    purposes: Annotated[tuple[Permission, ...], Field(min_length=1)]
    diseases: Annotated[tuple[Code, ...], Field(max_length=16)] = ()
    companies_asked: bool = False
    only_study: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^([a-z0-9][a-z0-9_-]{0,80})?$")] = ""
    epsilon_max: Annotated[Number, Field(gt=0, le=8)]
    delta_max: Annotated[Number, Field(gt=0, le=Decimal("1e-5"))]
    valid_days: Annotated[int, Field(ge=1, le=3660)]
    data: Annotated[tuple[Category, ...], Field(min_length=1)]
    reward: Literal["none", "share"]
    words: Annotated[dict[Language, OwnWords], Field(min_length=1)]

    @model_validator(mode="after")
    def _disease_is_named(self) -> "Outline":
        if (DISEASE_RESEARCH in self.purposes) != bool(self.diseases):
            raise ValueError("research on a named disease and the names of diseases belong together")
        return self


def outline_of(plan: StudyPlan) -> dict[str, str | list[str]]:
    """What a study's plan answers of an outline, as the fields of the form."""
    purpose = plan.purpose
    return {
        "name": plan.name,
        "languages": ["en"],
        "sponsor": plan.sponsor,
        "mechanism": "licence" if plan.consent.kind == "licence" else "consent",
        "only_study": plan.study_id,
        "purposes": [purpose.duo],
        "diseases": purpose.disease or "",
        "epsilon_max": plain_decimal(plan.privacy.epsilon),
        "delta_max": plain_decimal(plan.privacy.delta),
        "reward": "share" if plan.reward.minted else "none",
        "words.en.title": plan.title,
        "words.en.why": purpose.statement,
    }


def write_request(outline: Outline, catalogs: Mapping[str, NullTranslations]) -> ConsentRequest:
    """The whole request, every layer written in each language of ``outline.words``.

    Raises:
        ValueError: a field is out of range (pydantic names it).
    """
    purposes = [
        AskedPurpose(
            key=code.lower().replace(":", "-"),
            codes=(code, ONE_PROJECT) if outline.only_study else (code,),
            diseases=tuple(outline.diseases) if code == DISEASE_RESEARCH else (),
            words={
                name: purpose_words(code, own.disease, catalogs[name], outline.only_study)
                for name, own in outline.words.items()
            },
        )
        for code in outline.purposes
    ]
    if outline.companies_asked:
        words = {name: _companies(catalogs[name]) for name in outline.words}
        purposes.append(AskedPurpose(key="companies", codes_if_no=(NON_PROFIT,), words=words))
    return ConsentRequest(
        mechanism=Mechanism(outline.mechanism),
        controller=Controller(name=outline.controller, contact=outline.contact),
        purposes=tuple(purposes),
        epsilon_max=outline.epsilon_max,
        delta_max=outline.delta_max,
        valid_days=outline.valid_days,
        conditions={ONE_PROJECT: (outline.only_study,)} if outline.only_study else {},
        data_categories=tuple(dict.fromkeys(term for name in outline.data for term in TERMS[name])),
        words={name: _layers(outline, own, catalogs[name], name) for name, own in outline.words.items()},
    )


def unsaid(asked: ConsentRequest) -> list[tuple[str, str]]:
    """Where a text does not name a figure that binds: (the name of its field, the figure as the text should have it).

    An officer may change every word; but a notice that names another epsilon than it asks for would be untrue.
    """
    found: list[tuple[str, str]] = []
    for language, said in asked.words.items():
        figures = (
            ("privacy", asked.epsilon_max),
            ("privacy", asked.delta_max),
            ("duration", Decimal(asked.valid_days)),
        )
        for layer, figure in figures:
            spellings = {plain_decimal(figure), number(figure, language)}
            tokens = set(re.findall(r"\d+(?:[.,\u00a0\u202f]\d+)*", getattr(said, layer)))
            if not spellings & tokens:
                found.append((f"words.{language}.{layer}", number(figure, language)))
    return found


def purpose_words(code: str, disease: str, catalog: NullTranslations, only_study: str = "") -> PurposeWords:
    """A DUO permission as a question's subject, and what a yes to it means."""
    _ = catalog.gettext
    titles = {
        "DUO:0000004": _("Any use, without restriction"),
        "DUO:0000042": _("Research of any kind"),
        "DUO:0000006": _("Research on health and disease"),
        "DUO:0000007": _("Research on %(disease)s") % {"disease": disease or _("this disease")},
        "DUO:0000011": _("Research on the origins of populations"),
    }
    explanations = {
        "DUO:0000004": _("Studies of every kind may use your data, also those that have nothing to do with research."),
        "DUO:0000042": _("Studies in any field of research may use your data, not only in medicine."),
        "DUO:0000006": _("Studies about any disease, about health and about care may use your data."),
        "DUO:0000007": _("Only studies about this disease may use your data, and no others."),
        "DUO:0000011": _("Studies about where groups of people come from and how they are related may use your data."),
    }
    only = _("Of these, only one study may use your data: the one with the identifier %(study)s.") % {
        "study": only_study
    }
    return PurposeWords(title=titles[code], explanation=explanations[code] + (f" {only}" if only_study else ""))


def _companies(catalog: NullTranslations) -> PurposeWords:
    _ = catalog.gettext
    return PurposeWords(
        title=_("Use by companies"),
        explanation=_(
            "If you say yes, studies that companies run for profit may take part in what you allowed above. If you say"
            " no, only studies that are not for profit may."
        ),
    )


def data_words(catalog: NullTranslations) -> dict[str, str]:
    """The categories of data, as a list for people names them."""
    _ = catalog.gettext
    return {
        "diagnoses": _("diagnoses"),
        "measurements": _("measurements such as blood pressure and pulse"),
        "treatments": _("treatments and medicines"),
        "laboratory": _("laboratory results"),
        "imaging": _("pictures such as X-rays and scans"),
        "genetic": _("genetic data"),
        "lifestyle": _("habits such as smoking and exercise"),
        "age_sex": _("your age and your sex"),
        "device": _("readings of your device"),
    }


def _layers(outline: Outline, own: OwnWords, catalog: NullTranslations, language: str) -> RequestWords:
    _ = catalog.gettext
    names = {"institution": outline.controller, "sponsor": outline.sponsor, "contact": outline.contact}
    numbers = {
        "epsilon": number(outline.epsilon_max, language),
        "delta": number(outline.delta_max, language),
        "guesses": right_guesses_max(outline.epsilon_max, outline.delta_max),
    }
    kinds = data_words(catalog)
    listed = "\n".join(f"• {kinds[name]}" for name in outline.data)
    reward = {
        "none": _("You receive no reward, and it costs you nothing. Your treatment is the same whatever you decide."),
        "share": _(
            "%(institution)s is paid according to how much its data improved the model. It passes a part of this on, in"
            " equal parts, to everybody whose consented data could be used. What you have earned stays yours if you"
            " stop. Your treatment is the same whatever you decide."
        ),
    }[outline.reward] % names
    days = catalog.ngettext(
        "Your yes lasts for %(days)d day after you sign. Then it ends by itself, unless you agree again.",
        "Your yes lasts for %(days)d days after you sign. Then it ends by itself, unless you agree again.",
        outline.valid_days,
    ) % {"days": outline.valid_days}
    said = RequestWords(
        title=own.title,
        what=_(
            "We ask whether your data may help to train a computer model. A model is a list of numbers that learns from"
            " the records of many people. Your record itself stays at %(institution)s and is not sent to anybody. Only"
            " changes to these numbers leave, and they are blurred on purpose."
        )
        % names,
        who=_(
            "%(institution)s holds your data, asks you, and answers for what happens with it. %(sponsor)s runs the"
            " study and receives the model. Other institutions take part with the data of their own people.\nQuestions:"
            " %(contact)s"
        )
        % names,
        why=own.why,
        data=_("These parts of your record are used, here at %(institution)s:") % names + "\n" + listed,
        duration=days,
        privacy=_(
            "Before anything leaves %(institution)s, random noise is added, which limits how well anybody could tell"
            " whether you took part. Somebody who sees everything that one study sends out, and has to guess whether"
            " you are in it, would be right in at most %(guesses)d of 100 guesses. Tossing a coin is right in 50.\n"
            "The formal limits for one study are epsilon %(epsilon)s and delta %(delta)s. A study that asks for more"
            " does not use your data."
        )
        % {**names, **numbers},
        reward=reward,
        withdrawal=_(
            "You can stop at any time, on this page or by telling us. You need no reason, and not your key either. From"
            " the next round on, your data is left out, in every study. What earlier rounds have learnt cannot be taken"
            " out of the numbers again; the noise protects you there too. You can also ask %(institution)s to show you,"
            " correct or erase your data, and complain to the data protection authority."
        )
        % names,
    )
    if outline.mechanism == "consent":
        return said
    return owner_words(said, {**names, **numbers}, catalog, listed=listed, share=outline.reward == "share")
