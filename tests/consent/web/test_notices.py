"""Versions of a notice: which still count, and what a person is shown of a change."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consent.web.notices import Edit, Paragraph, Version, asks_otherwise, changes, compare, counting, hashes, superseded
from consent.web.request import AskedPurpose, ConsentRequest, Controller, PurposeWords, RequestWords, notice_hash

LAYER = "It stays at the hospital."


def words(**changed: str) -> RequestWords:
    layers = ("what", "who", "why", "data", "duration", "privacy", "reward", "withdrawal")
    return RequestWords(**{"title": "Heart study", **dict.fromkeys(layers, LAYER), **changed})


def request(**changed: Any) -> ConsentRequest:
    purpose = AskedPurpose(
        key="health",
        codes=("DUO:0000006",),
        words={name: PurposeWords(title="Health", explanation="Any disease.") for name in ("en", "fr")},
    )
    usual: dict[str, Any] = {
        "controller": Controller(name="Cleveland Clinic", contact="dpo@example.org"),
        "purposes": (purpose,),
        "words": {"en": words(), "fr": words(title="Étude du cœur")},
    }
    return ConsentRequest(**{**usual, **changed})


def version(number: int, asked: ConsentRequest | None = None, *, material: bool = False) -> Version:
    return Version(number, asked or request(words={"en": words(why=f"Reason {number}.")}), material)


def without(paragraphs: tuple[Paragraph, ...], edit: Edit) -> list[str]:
    kept = ["".join(passage.text for passage in part.passages if passage.edit is not edit) for part in paragraphs]
    return [text for text in kept if text]


def test_after_a_small_change_the_earlier_yes_still_counts() -> None:
    assert [item.number for item in counting([version(1), version(2), version(3)])] == [1, 2, 3]
    assert superseded([version(1), version(2)]) == frozenset()


def test_after_a_material_change_the_earlier_yes_counts_no_longer() -> None:
    versions = [version(1), version(2), version(3, material=True), version(4)]
    assert [item.number for item in counting(versions)] == [3, 4]
    assert superseded(versions) == hashes(versions[:2])


def test_the_order_in_which_versions_are_named_does_not_matter() -> None:
    versions = [version(1), version(2, material=True), version(3)]
    assert counting(versions[::-1]) == counting(versions)


def test_other_terms_are_material_whatever_the_officer_says() -> None:
    versions = [version(1, request()), version(2, request(epsilon_max=Decimal(8)))]
    assert [item.number for item in counting(versions)] == [2]


def test_new_words_or_a_new_telephone_number_are_no_other_terms() -> None:
    moved = request(controller=Controller(name="Cleveland Clinic", contact="+1 555 0100"))
    assert not asks_otherwise(request(), moved)
    assert not asks_otherwise(request(), request(words={"en": words(why="Because.")}))
    assert asks_otherwise(request(), request(controller=Controller(name="Another", contact="dpo@example.org")))


def test_a_text_that_comes_back_counts_again() -> None:
    first = request()
    versions = [version(1, first), version(2, material=True), version(3, first, material=True)]
    assert notice_hash(first, "en") not in superseded(versions)
    assert superseded(versions) == hashes([versions[1]])


def test_a_change_is_shown_word_by_word() -> None:
    old = "Your data stay here.\n\nFor 30 days."
    new = "Your data stay here.\n\nFor 365 days.\n\nNobody is paid."
    first, second, third = compare(old, new)
    assert not first.changed
    assert [(passage.edit, passage.text) for passage in second.passages] == [
        (Edit.SAME, "For "),
        (Edit.REMOVED, "30"),
        (Edit.ADDED, "365"),
        (Edit.SAME, " days."),
    ]
    assert [(passage.edit, passage.text) for passage in third.passages] == [(Edit.ADDED, "Nobody is paid.")]


def test_a_change_is_shown_in_the_reader_s_language() -> None:
    new = request(words={"en": words(why="Because."), "fr": words(title="Étude du cœur", why="Parce que.")})
    changed = [part for part in changes(request(), new, "fr") if part.changed]
    assert [without((part,), Edit.REMOVED) for part in changed] == [["Parce que."]]


@settings(max_examples=60, deadline=None)
@given(
    old=st.lists(st.sampled_from(["a", "b", "c ", " ", "\n\n", "é"]), max_size=14).map("".join),
    new=st.lists(st.sampled_from(["a", "b", "c ", " ", "\n\n", "é"]), max_size=14).map("".join),
)
def test_a_comparison_holds_both_texts_whole(old: str, new: str) -> None:
    found = compare(old, new)
    assert "".join("".join(without(found, Edit.ADDED)).split()) == "".join(old.split())
    assert "".join("".join(without(found, Edit.REMOVED)).split()) == "".join(new.split())
    assert all(not part.changed for part in compare(new, new))
