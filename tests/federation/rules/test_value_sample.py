"""Sampled value tables: drawn from the log's seed, read again to the last digit, and refused where they are not it."""

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import OperatorError, PeerError
from federation.rules.documents import TABLE_BYTES_MAX, ValueTable
from federation.rules.orders import HashedOrders
from federation.rules.sampled_values import antithetic_factors
from federation.rules.terms import COALITIONS_MAX, PARTICIPANTS_MAX, Sampling, Valuation, coalitions_needed
from federation.rules.valuation import method_named
from federation.rules.value_sample import ValueSample, coalitions_of, draw, place_of, redraw, seed_of, values_of

SEED = seed_of("study", 1, {"did:key:a": "1" * 64})


def game(masks: Sequence[int]) -> list[int]:
    """Concave: what each adds shrinks with what is there; the first player adds nothing."""
    return [
        round(1e9 * math.sqrt(sum(place for place in range(mask.bit_length()) if mask >> place & 1))) for mask in masks
    ]


def terms(method: str = "shapley", precision: str = "0.001", coalitions_max: int = COALITIONS_MAX) -> Valuation:
    sampling = {"precision": precision, "coalitions_max": coalitions_max}
    return Valuation.model_validate({"method": method, "utility": "negative-log-loss", "sampling": sampling})


def table(sample: ValueSample, count: int, **changes: Any) -> ValueTable:
    names = tuple(f"p{place:03}" for place in range(count))
    fields = {"study": "study", "round": 1, "players": names, "utilities": sample.utilities, "salt": "5" * 64}
    return ValueTable.model_validate({**fields, "seed": SEED, **changes})


def sampling(valuation: Valuation) -> Sampling:
    assert valuation.sampling is not None
    return valuation.sampling


@pytest.mark.parametrize("method", ["shapley", "leave-one-out", "banzhaf", "beta-16-1"])
def test_a_table_gives_back_the_coalitions_it_was_drawn_with_and_values_near_the_exact_ones(method: str) -> None:
    players, valuation = 15, terms(method, precision="0.005")
    sample = draw(players, game, valuation, SEED)
    assert sample.utilities == tuple(game(sample.coalitions))
    assert (sample.coalitions[0], sample.coalitions[-1]) == (0, (1 << players) - 1)
    assert len(set(sample.coalitions)) == len(sample.coalitions) <= COALITIONS_MAX
    written = table(sample, players)
    assert redraw(written, valuation) == sample
    assert list(coalitions_of(written, valuation)) == list(sample.coalitions)
    assert place_of(written, valuation, sample.coalitions[7]) == 7
    values = values_of(written, valuation)
    assert values[0] == 0
    if method in ("shapley", "leave-one-out"):
        exact = [game([(1 << players) - 1])[0] - game([(1 << players) - 1 - (1 << each)])[0] for each in range(players)]
        assert method == "shapley" or list(values) == exact
        assert method != "shapley" or sum(values) == sample.utilities[-1] - sample.utilities[0]
    assert sample.values.reached
    assert max(sample.values.half_widths) <= sampling(valuation).half_width


@given(st.integers(15, 40), st.binary(min_size=32, max_size=32))
@settings(max_examples=6, deadline=None)
def test_estimates_are_their_factors_times_the_utilities(players: int, seed: bytes) -> None:
    sample = draw(players, game, terms(coalitions_max=coalitions_needed("shapley", players)), seed.hex())
    factors = antithetic_factors(sample.coalitions, players, HashedOrders(seed), sample.values.samples)
    for estimate, row in zip(sample.values.estimates, factors, strict=True):
        assert math.isclose(float(estimate), float(row @ sample.utilities), rel_tol=1e-9, abs_tol=1e-2)


def test_the_largest_table_that_a_plan_can_ask_for_fits_into_one_piece() -> None:
    sample = draw(
        PARTICIPANTS_MAX, lambda masks: [-(10**14) - mask % 1009 for mask in masks], terms(precision="1e-12"), SEED
    )
    assert COALITIONS_MAX * 0.95 < len(sample.utilities) <= COALITIONS_MAX
    dids = tuple(f"did:key:z6Mk{place:044}" for place in range(PARTICIPANTS_MAX))
    assert len(table(sample, PARTICIPANTS_MAX, players=dids).to_payload()) <= TABLE_BYTES_MAX
    assert not sample.values.reached


def test_a_sample_that_is_cut_short_goes_on_too_long_or_has_another_seed_is_refused() -> None:
    valuation = terms()
    sample = draw(16, game, valuation, SEED)
    cut = sample.utilities[:-2] + sample.utilities[-1:]
    longer = (*sample.utilities[:-1], 1, sample.utilities[-1])
    for changes, why in (
        ({"utilities": cut}, "ends before"),
        ({"utilities": longer}, "goes on after"),
        ({"utilities": sample.utilities[:1]}, "ends before"),
        ({"seed": None}, "not a sampled one"),
    ):
        with pytest.raises(PeerError, match=why):
            redraw(table(sample, 16, **changes), valuation)
    other = draw(16, game, valuation, seed_of("study", 2, {"did:key:a": "1" * 64}))
    assert other.coalitions != sample.coalitions
    with pytest.raises(PeerError, match="no terms for sampling"):
        redraw(table(sample, 16), Valuation(method="shapley", utility="negative-log-loss"))
    with pytest.raises(OperatorError, match="no terms for sampling"):
        draw(16, game, terms(coalitions_max=10), SEED)


def test_the_seed_says_who_committed_what_in_which_round() -> None:
    commitments = {"did:key:b": "2" * 64, "did:key:a": "1" * 64}
    seeds = {
        seed_of("study", 1, commitments),
        seed_of("study", 2, commitments),
        seed_of("other", 1, commitments),
        seed_of("study", 1, {"did:key:a": "2" * 64, "did:key:b": "1" * 64}),
        seed_of("study", 1, {"did:key:a": "1" * 64}),
    }
    assert len(seeds) == 5
    assert seed_of("study", 1, dict(reversed(commitments.items()))) in seeds


def test_a_table_of_all_coalitions_is_read_as_before() -> None:
    utilities = tuple(game(range(8)))
    written = ValueTable(study="study", round=1, players=("a", "b", "c"), utilities=utilities, salt="5" * 64)
    assert b"seed" not in written.to_payload()
    valuation = Valuation(method="shapley", utility="negative-log-loss")
    assert list(values_of(written, valuation)) == method_named("shapley")(utilities)
    assert place_of(written, valuation, 5) == 5


def test_precision_and_confidence_are_the_plans() -> None:
    wide, narrow = (draw(20, game, terms(precision=each), SEED) for each in ("0.01", "0.00002"))
    assert len(narrow.utilities) > len(wide.utilities)
    assert wide.values.confidence == Fraction(95, 100)
    assert sampling(terms(precision="0.5")).half_width == 2**39
    assert sampling(terms()).confidence == Decimal("0.95")
