import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.purposes import BROADER, LABELS, Consented, Wanted, ancestors, covers, in_words, needs_person

NRES, GRU, HMB, DS, POA = "DUO:0000004", "DUO:0000042", "DUO:0000006", "DUO:0000007", "DUO:0000011"
HEART, CORONARY, CANCER = "MONDO:0005267", "MONDO:0005010", "MONDO:0004992"
NON_COMMERCIAL = "DUO:0000046"

codes = st.sampled_from(sorted(LABELS))
diseases = st.sampled_from(sorted(BROADER))


@pytest.mark.parametrize(
    ("purposes", "given_diseases", "duo", "disease", "expected"),
    [
        ((GRU,), (), HMB, None, True),
        ((GRU,), (), POA, None, True),
        ((GRU,), (), NRES, None, False),
        ((NRES,), (), GRU, None, True),
        ((HMB,), (), DS, HEART, True),
        ((HMB,), (), GRU, None, False),
        ((HMB,), (), POA, None, False),
        ((DS,), (HEART,), DS, HEART, True),
        ((DS,), (HEART,), DS, CORONARY, True),
        ((DS,), (CORONARY,), DS, HEART, False),
        ((DS,), (HEART,), DS, CANCER, False),
        ((DS,), (HEART,), HMB, None, False),
        ((DS,), (HEART,), HMB, HEART, False),
        ((DS,), (), DS, HEART, False),
        ((DS,), (HEART, CANCER), DS, CANCER, True),
        ((DS,), ("MONDO:9999999",), DS, "MONDO:9999999", True),
        ((POA,), (), HMB, None, False),
        ((DS, POA), (CANCER,), POA, None, True),
        ((), (), HMB, None, False),
    ],
)
def test_the_ladder_of_permissions(
    purposes: tuple[str, ...], given_diseases: tuple[str, ...], duo: str, disease: str | None, *, expected: bool
) -> None:
    assert covers(Consented(purposes, given_diseases), Wanted(duo, disease)) is expected


@pytest.mark.parametrize(
    ("consented", "wanted"),
    [
        (Consented((GRU, NON_COMMERCIAL)), Wanted(HMB)),
        (Consented((GRU,)), Wanted("DUO:0000043")),
        (Consented((HMB,)), Wanted(DS)),
    ],
)
def test_what_needs_a_person_is_a_no(consented: Consented, wanted: Wanted) -> None:
    assert needs_person(consented, wanted)
    assert not covers(consented, wanted)


@given(st.lists(codes, max_size=3), st.lists(diseases, max_size=2), codes, diseases, codes, diseases)
def test_allowing_more_never_forbids(  # the more a person ticks, the more is covered
    purposes: list[str], chosen: list[str], duo: str, disease: str, more: str, another: str
) -> None:
    wanted = Wanted(duo, disease)
    if covers(Consented(tuple(purposes), tuple(chosen)), wanted):
        assert covers(Consented((*purposes, more), (*chosen, another)), wanted)


@given(diseases)
def test_the_disease_table_has_no_cycle_and_ends_at_disease(disease: str) -> None:
    assert "MONDO:0000001" in ancestors(disease)
    assert disease not in {above for broader in BROADER[disease] for above in ancestors(broader)}


def test_a_permission_in_words() -> None:
    assert in_words(DS, (HEART,)) == f"research on a named disease ({HEART})"
    assert in_words("DUO:0000099") == "DUO:0000099"
