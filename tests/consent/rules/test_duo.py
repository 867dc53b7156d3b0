"""The eighteen modifiers, one by one, and the laws that all of them keep."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from consent.rules.diseases import BROADER, NAMES, ancestors
from consent.rules.duo import MODIFIERS, NOTHING_DECLARED, PERMISSIONS, Declared, Verdict, label_of, moment_of
from consent.rules.purposes import Consented, Wanted, covers, judge, needs_person
from consent.rules.reasons import TEXTS
from federation.rules.terms import Purpose

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GRU, HMB, DS, NRES, CC = "DUO:0000042", "DUO:0000006", "DUO:0000007", "DUO:0000004", "DUO:0000043"
YES, PERSON, NO = Verdict.YES, Verdict.PERSON, Verdict.NO
NOT_FOR_PROFIT, FOR_PROFIT = {"organisation": "not-for-profit"}, {"organisation": "for-profit"}
FRIENDLY: dict[str, Any] = {
    "commercial": False,
    "organisation": "not-for-profit",
    "countries": ("FR",),
    "methods_development": False,
    "ancestry": False,
    "genetic": True,
    "research_types": ("cardiology",),
    "institutions": ("Hospital",),
    "users": ("Dr Silva",),
    "project": "HEART",
    "publication_from": datetime(2030, 1, 1, tzinfo=UTC),
    "approvals": ("CPP 12-34",),
}
GENEROUS = {
    "DUO:0000012": ("cardiology",),
    "DUO:0000022": ("FR", "PT"),
    "DUO:0000024": ("2028-01-01",),
    "DUO:0000025": ("2029-01-01",),
    "DUO:0000026": ("Dr Silva",),
    "DUO:0000027": ("HEART",),
    "DUO:0000028": ("Hospital",),
}


@pytest.mark.parametrize(
    ("short", "allowed", "declared", "expected"),
    [
        ("RS", ("cardiology",), {"research_types": ("cardiology",)}, YES),
        ("RS", ("cardiology",), {"research_types": ("cardiology", "genetics")}, NO),
        ("RS", ("cardiology",), {}, PERSON),
        ("RS", (), {"research_types": ("cardiology",)}, PERSON),
        ("NMDS", (), {"methods_development": False}, YES),
        ("NMDS", (), {"methods_development": True}, NO),
        ("NMDS", (), {}, PERSON),
        ("GSO", (), {"genetic": True}, PERSON),
        ("GSO", (), {"genetic": False}, NO),
        ("GSO", (), {}, PERSON),
        ("NPUNCU", (), {"commercial": False, **NOT_FOR_PROFIT}, YES),
        ("NPUNCU", (), {"commercial": True, **NOT_FOR_PROFIT}, NO),
        ("NPUNCU", (), {"commercial": False, **FOR_PROFIT}, NO),
        ("NPUNCU", (), {"commercial": False}, PERSON),
        ("PUB", (), FRIENDLY, PERSON),
        ("COL", (), FRIENDLY, PERSON),
        ("IRB", (), FRIENDLY, PERSON),
        ("RTN", (), FRIENDLY, PERSON),
        ("GS", ("FR", "PT"), {"countries": ("PT",)}, YES),
        ("GS", ("FR", "PT"), {"countries": ("PT", "US")}, NO),
        ("GS", ("FR", "PT"), {}, PERSON),
        ("GS", (), {"countries": ("PT",)}, PERSON),
        ("MOR", ("2026-11-22",), {}, YES),  # the day has begun
        ("MOR", ("2027-06-01",), {}, PERSON),
        ("MOR", ("2027-06-01",), {"publication_from": datetime(2027, 6, 1, tzinfo=UTC)}, YES),
        ("MOR", ("2027-06-01",), {"publication_from": datetime(2027, 5, 31, tzinfo=UTC)}, NO),
        ("MOR", ("soon",), FRIENDLY, PERSON),
        ("TS", ("2026-11-23",), {}, YES),
        ("TS", ("2026-11-22",), {}, NO),
        ("TS", ("2026-11-22T12:00:01Z",), {}, YES),
        ("TS", ("2026-11-22T12:00:00Z",), {}, NO),
        ("TS", ("2030-01-01", "2026-01-01"), {}, NO),
        ("TS", ("never",), {}, PERSON),
        ("TS", (), {}, PERSON),
        ("US", ("Dr Silva",), {"users": ("Dr Silva",)}, YES),
        ("US", ("Dr Silva",), {"users": ("Dr Silva", "Dr No")}, NO),
        ("US", ("Dr Silva",), {}, PERSON),
        ("PS", ("HEART",), {"project": "HEART"}, YES),
        ("PS", ("HEART",), {"project": "LUNG"}, NO),
        ("PS", ("HEART",), {}, PERSON),
        ("PS", ("heart-0123456789ab",), {"study": ("heart-0123456789ab", "f" * 64)}, YES),
        ("PS", ("HEART",), {"study": ("heart-0123456789ab",)}, PERSON),
        ("IS", ("Hospital",), {"institutions": ("Hospital",)}, YES),
        ("IS", ("Hospital",), {"institutions": ("Hospital", "Company")}, NO),
        ("IS", ("Hospital",), {}, PERSON),
        ("CC", (), {"clinical_care": True}, YES),
        ("NPOA", (), {"ancestry": False}, YES),
        ("NPOA", (), {"ancestry": True}, NO),
        ("NPOA", (), {}, PERSON),
        ("NPU", (), NOT_FOR_PROFIT, YES),
        ("NPU", (), FOR_PROFIT, NO),
        ("NPU", (), {}, PERSON),
        ("NCU", (), {"commercial": False}, YES),
        ("NCU", (), {"commercial": True}, NO),
        ("NCU", (), {}, PERSON),
    ],
)
def test_a_modifier(short: str, allowed: tuple[str, ...], declared: dict[str, Any], expected: Verdict) -> None:
    modifier = next(modifier for modifier in MODIFIERS.values() if modifier.short == short)
    study = Declared(**declared)
    assert modifier.rule(allowed, study, NOW) is expected
    consented = Consented((GRU, CC, modifier.code), (), {modifier.code: allowed} if allowed else {})
    findings = judge(consented, Wanted(HMB, declared=study), NOW)
    assert covers(consented, Wanted(HMB, declared=study), NOW) is (expected is YES)
    assert [finding.person for finding in findings] == ([] if expected is YES else [expected is PERSON])


def test_dates_need_the_moment() -> None:
    for code in ("DUO:0000024", "DUO:0000025"):
        assert needs_person(Consented((GRU, code), (), {code: ("2020-01-01",)}), Wanted(HMB))


def test_every_code_of_the_ontology_is_there() -> None:
    shorts = {known.short for known in (*PERMISSIONS.values(), *MODIFIERS.values())}
    assert len(PERMISSIONS) == 5
    assert len(MODIFIERS) == 18
    permissions_, modifiers = ["NRES", "GRU", "HMB", "DS", "POA"], ["RS", "NMDS", "GSO", "NPUNCU", "PUB", "COL", "IRB"]
    modifiers += ["GS", "MOR", "TS", "US", "PS", "IS", "RTN", "CC", "NPOA", "NPU", "NCU"]
    assert shorts == {*permissions_, *modifiers}
    assert label_of("DUO:0000046") == "no commercial use"
    assert label_of("DUO:9999999") == "DUO:9999999"


def test_what_only_a_person_can_know_is_never_a_yes() -> None:
    everything = Declared(**FRIENDLY)
    for short in ("IRB", "COL", "PUB", "GSO", "RTN"):
        code = next(code for code, modifier in MODIFIERS.items() if modifier.short == short)
        assert needs_person(Consented((NRES, code)), Wanted(HMB, declared=everything), NOW)


def test_clinical_care_needs_its_own_word() -> None:
    care = Declared(clinical_care=True)
    assert not covers(Consented((GRU,)), Wanted(HMB, declared=care))
    assert covers(Consented((GRU, CC)), Wanted(HMB, declared=care))
    assert covers(Consented((NRES,)), Wanted(HMB, declared=care))
    assert not covers(Consented((CC,)), Wanted(HMB, declared=care))  # a modifier alone allows nothing


def test_ancestry_needs_a_permission_that_holds_it() -> None:
    ancestry = Declared(ancestry=True)
    assert not covers(Consented((HMB,)), Wanted(HMB, declared=ancestry))
    assert covers(Consented((GRU,)), Wanted(HMB, declared=ancestry))
    assert covers(Consented((HMB, "DUO:0000011")), Wanted(HMB, declared=ancestry))


def test_a_condition_without_its_modifier_needs_a_person() -> None:
    assert needs_person(Consented((GRU,), (), {"DUO:0000022": ("FR",)}), Wanted(HMB))


@pytest.mark.parametrize("text", ["", "2026-13-01", "2026-11-22T12:00:00+01:00", "tomorrow", "20261122T000000"])
def test_other_texts_are_no_moment(text: str) -> None:
    assert moment_of(text) is None


def test_the_reference_page_tells_of_every_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "duo.md").read_text("utf-8")
    for known in (*PERMISSIONS.values(), *MODIFIERS.values()):
        assert f"| {known.code} | {known.short} | {known.label} |" in page
    for field in Purpose.model_fields:
        assert f"\n{field} = " in page
    for code in TEXTS:
        assert f"`{code.split('.')[0]}`" in page


# Laws.

codes = st.sampled_from([*PERMISSIONS, *MODIFIERS])
restrictive = st.sampled_from(sorted(set(MODIFIERS) - {CC}))
diseases = st.sampled_from(sorted(BROADER))
declarations = st.builds(
    Declared,
    commercial=st.none() | st.booleans(),
    organisation=st.none() | st.sampled_from(["not-for-profit", "for-profit"]),
    countries=st.sampled_from([(), ("FR",), ("FR", "US")]),
    methods_development=st.none() | st.booleans(),
    ancestry=st.none() | st.booleans(),
    genetic=st.none() | st.booleans(),
    clinical_care=st.none() | st.booleans(),
    research_types=st.sampled_from([(), ("cardiology",), ("genetics",)]),
    institutions=st.sampled_from([(), ("Hospital",), ("Company",)]),
    users=st.sampled_from([(), ("Dr Silva",), ("Dr No",)]),
    project=st.sampled_from([None, "HEART", "LUNG"]),
    publication_from=st.sampled_from([None, NOW, datetime(2030, 1, 1, tzinfo=UTC)]),
)
permissions = st.sampled_from(list(PERMISSIONS))
wanted_uses = st.builds(Wanted, permissions, st.none() | diseases, declarations | st.just(Declared(**FRIENDLY)))


@st.composite
def consents(draw: st.DrawFn) -> Consented:
    purposes = tuple(draw(st.lists(codes, min_size=1, max_size=4, unique=True)))
    conditions = {code: GENEROUS[code] for code in purposes if code in GENEROUS and draw(st.integers(0, 4)) > 0}
    return Consented(purposes, tuple(draw(st.lists(diseases, max_size=2, unique=True))), conditions)


@given(consents(), restrictive, wanted_uses)
def test_adding_a_modifier_never_turns_a_no_into_a_yes(consented: Consented, code: str, wanted: Wanted) -> None:
    assume(code not in consented.purposes)
    conditions = {**consented.conditions, **({code: GENEROUS[code]} if code in GENEROUS else {})}
    narrower = Consented((*consented.purposes, code), consented.diseases, conditions)
    assert not covers(narrower, wanted, NOW) or covers(consented, wanted, NOW)


@given(consents(), wanted_uses, permissions, diseases)
def test_narrowing_a_purpose_never_turns_a_yes_into_a_no(
    consented: Consented, wanted: Wanted, narrower: str, disease: str
) -> None:
    if covers(consented, wanted, NOW) and narrower in PERMISSIONS[wanted.duo].contains:
        named = wanted.disease or disease
        assert covers(consented, replace(wanted, duo=narrower, disease=named), NOW)


@given(consents(), declarations, diseases)
def test_the_disease_hierarchy_is_monotone(consented: Consented, declared: Declared, disease: str) -> None:
    for broader in ancestors(disease):
        if covers(consented, Wanted(DS, broader, declared), NOW):
            assert covers(consented, Wanted(DS, disease, declared), NOW)


@given(consents(), wanted_uses)
def test_what_needs_a_person_is_never_covered(consented: Consented, wanted: Wanted) -> None:
    assert not (needs_person(consented, wanted, NOW) and covers(consented, wanted, NOW))
    assert covers(consented, wanted, NOW) is (judge(consented, wanted, NOW) == ())


@given(consents(), wanted_uses, st.from_regex(r"DUO:[0-9]{7}", fullmatch=True))
def test_an_unknown_code_is_never_covered(consented: Consented, wanted: Wanted, code: str) -> None:
    if code not in PERMISSIONS and code not in MODIFIERS:
        assert not covers(replace(consented, purposes=(*consented.purposes, code)), wanted, NOW)
    if code not in PERMISSIONS:
        assert not covers(consented, replace(wanted, duo=code), NOW)


@given(consents(), wanted_uses)
def test_saying_nothing_never_counts_in_a_studys_favour(consented: Consented, wanted: Wanted) -> None:
    silent = replace(wanted.declared, **{name: getattr(NOTHING_DECLARED, name) for name in ("commercial", "countries")})
    if covers(consented, replace(wanted, declared=silent), NOW):
        assert covers(consented, wanted, NOW)


def test_the_disease_table() -> None:
    assert len(NAMES) > 200
    assert set(BROADER) == set(NAMES)
    for disease, broader in BROADER.items():
        assert set(broader) <= set(BROADER)
        assert len(set(broader)) == len(broader)
        assert disease not in {above for one in broader for above in ancestors(one)}
        assert "MONDO:0000001" in ancestors(disease)
    assert "MONDO:0005267" in ancestors("MONDO:0004981")  # atrial fibrillation is a heart disorder
    assert ancestors("MONDO:9999999") == {"MONDO:9999999"}
