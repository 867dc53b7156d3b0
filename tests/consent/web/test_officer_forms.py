"""A form's fields and the document they stand for are one and the same."""

from __future__ import annotations

from gettext import NullTranslations

import pytest
from pydantic import ValidationError
from test_notices import request

from consent.web.officer_draft import Outline
from consent.web.officer_forms import fields_of, nested, problems_of
from consent.web.request import ConsentRequest


def test_a_request_goes_through_a_form_unchanged() -> None:
    asked = request()
    assert ConsentRequest.model_validate(nested(fields_of(asked).items())) == asked


def test_line_ends_of_a_browser_are_those_of_a_text() -> None:
    assert nested([("words.en.why", "one\r\ntwo")]) == {"words": {"en": {"why": "one\ntwo"}}}


def test_ticked_boxes_are_a_list_and_codes_in_a_line_too() -> None:
    found = nested([("purposes", "DUO:0000006"), ("purposes", "DUO:0000007"), ("diseases", "MONDO:1, MONDO:2")])
    assert found == {"purposes": ["DUO:0000006", "DUO:0000007"], "diseases": ["MONDO:1", "MONDO:2"]}


@pytest.mark.parametrize("name", ["name.x", "words.en.title.more", "....", "purposes.0.codes.1", "x" * 5000])
def test_a_field_in_an_impossible_place_is_a_problem_and_no_crash(name: str) -> None:
    document = nested([("name", "a"), ("words.en.title", "t"), (name, "v")])
    with pytest.raises(ValidationError):
        Outline.model_validate(document)


def test_each_problem_names_its_field() -> None:
    document = nested([("name", "Not a slug"), ("words.en.title", ""), ("valid_days", "0")])
    with pytest.raises(ValidationError) as caught:
        Outline.model_validate(document)
    found = {problem.field: problem.text for problem in problems_of(caught.value, NullTranslations())}
    assert found["name"] == "This is not written in the form that is shown beside it."
    assert found["words.en.title"] == "Please fill this in."
    assert found["valid_days"] == "This number is too small."
    assert found["purposes"] == "Please fill this in."
