"""A request that is drafted from a few answers says what it asks, in every language, and binds to nothing else."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from gettext import NullTranslations
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from consent.web.officer_draft import (
    CATEGORIES,
    TERMS,
    Outline,
    OwnWords,
    outline_of,
    unsaid,
    write_request,
)
from consent.web.request import LAYERS, right_guesses_max
from consent.web.starter import starter_request
from federation.rules.study import plan_from_toml

PLAN = resources.files("federation.cli") / "plan_template.toml"
CATALOGS = {name: NullTranslations() for name in ("en", "fr", "pt")}


def outline(**changed: Any) -> Outline:
    usual: dict[str, Any] = {
        "name": "heart",
        "controller": "Cleveland Clinic",
        "contact": "dpo@example.org",
        "sponsor": "Heart Institute",
        "purposes": ("DUO:0000007", "DUO:0000006"),
        "diseases": ("MONDO:0005267",),
        "epsilon_max": Decimal(1),
        "delta_max": Decimal("0.00001"),
        "valid_days": 30,
        "data": ("diagnoses", "age_sex"),
        "reward": "share",
        "words": {"en": OwnWords(title="Heart study", why="To find heart disease earlier.", disease="heart disease")},
    }
    return Outline(**{**usual, **changed})


def test_every_layer_is_written_in_every_language() -> None:
    words = {name: OwnWords(title=f"Title {name}", why="Why.", disease="disease") for name in CATALOGS}
    asked = write_request(outline(words=words), CATALOGS)
    assert set(asked.words) == set(CATALOGS)
    assert all(getattr(said, layer) for said in asked.words.values() for layer in LAYERS)
    assert all(set(purpose.words) == set(CATALOGS) for purpose in asked.purposes)


def test_the_words_name_the_figures_that_bind() -> None:
    said = write_request(outline(epsilon_max=Decimal("0.5"), valid_days=90), CATALOGS).words["en"]
    assert "epsilon 0.5" in said.privacy
    assert "90 days" in said.duration
    assert "diagnoses" in said.data
    assert "genetic" not in said.data


def test_each_permission_is_a_question_of_its_own() -> None:
    asked = write_request(outline(), CATALOGS)
    assert asked.granted({"duo-0000007": True, "duo-0000006": False}) == (("DUO:0000007",), ("MONDO:0005267",))
    assert asked.granted({"duo-0000007": False, "duo-0000006": False}) == ((), ())


def test_a_no_to_companies_limits_what_was_allowed_and_allows_nothing_by_itself() -> None:
    asked = write_request(outline(companies_asked=True), CATALOGS)
    codes, _ = asked.granted({"duo-0000007": False, "duo-0000006": True, "companies": False})
    assert codes == ("DUO:0000006", "DUO:0000018")
    assert asked.granted({"duo-0000007": False, "duo-0000006": False, "companies": True}) == ((), ())


@pytest.mark.parametrize(
    ("epsilon", "guesses"), [("0.000001", 51), ("1", 74), ("3", 96), ("8", 100)]
)  # e / (1 + e) = 0.7311, e^3 / (1 + e^3) = 0.9526
def test_the_privacy_figure_is_an_upper_bound_in_whole_guesses(epsilon: str, guesses: int) -> None:
    assert right_guesses_max(Decimal(epsilon), Decimal("0.00001")) == guesses


def test_a_study_s_plan_fills_in_what_it_knows() -> None:
    text = PLAN.read_text(encoding="utf-8")
    text = re.sub(r"^commitment = .*$", f'commitment = "{64 * "0"}"', text, flags=re.MULTILINE)
    text = re.sub(r"^code_approved = .*$", f'code_approved = ["{64 * "0"}"]', text, flags=re.MULTILINE)
    plan = plan_from_toml(text, source="template")
    fields = outline_of(plan)
    assert fields["purposes"] == [plan.purpose.duo]
    assert fields["epsilon_max"] == str(plan.privacy.epsilon)
    assert fields["words.en.title"] == plan.title


def test_a_draft_names_every_figure_that_binds() -> None:
    words = {name: OwnWords(title="Title", why="Why.", disease="x") for name in CATALOGS}
    for epsilon, days in (("0.5", 1), ("3", 1095), ("2.25", 365)):
        assert (
            unsaid(write_request(outline(epsilon_max=Decimal(epsilon), valid_days=days, words=words), CATALOGS)) == []
        )


def test_a_text_that_names_another_figure_than_it_asks_for_is_found() -> None:
    asked = write_request(outline(), CATALOGS)
    assert unsaid(asked.model_copy(update={"epsilon_max": Decimal(8)})) == [("words.en.privacy", "8")]
    assert unsaid(asked.model_copy(update={"valid_days": 31})) == [("words.en.duration", "31")]


def test_every_category_of_data_is_a_term_of_the_vocabulary(repository: Path) -> None:
    known = json.loads((repository / "tests" / "vectors" / "dpv_terms.json").read_text(encoding="utf-8"))
    used = {term for terms in TERMS.values() for term in terms}
    assert set(TERMS) == set(CATEGORIES)
    assert {term.removeprefix("pd:") for term in used} <= set(known["https://w3id.org/dpv/pd#"])


def test_the_starter_request_is_true_to_its_figures() -> None:
    starter = starter_request("City Hospital", "privacy@hospital.example")
    assert unsaid(starter) == []
    guesses = str(right_guesses_max(starter.epsilon_max, starter.delta_max))
    assert all(guesses in said.privacy for said in starter.words.values())
