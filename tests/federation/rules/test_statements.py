from decimal import Decimal
from fractions import Fraction

import pytest

from federation.errors import OperatorError
from federation.rules.rewards import Payments, lower_bounds, pay
from federation.rules.statements import METHOD_WORDS, Statement, statement
from federation.rules.valuation import METHODS

ROUNDS = {
    1: {"cleveland": Fraction(3, 10), "hungary": Fraction(1, 10), "va": Fraction(-1, 10)},
    2: {"cleveland": Fraction(1, 10), "tiny": Fraction(1, 1000)},
    3: {"cleveland": Fraction(-1, 100), "va": Fraction(1, 100)},
}
MINIMUM = Decimal("0.05")


def payments() -> Payments:
    totals = {name: Fraction(0) for name in ("cleveland", "hungary", "va", "tiny", "absent")}
    for values in ROUNDS.values():
        for name, value in values.items():
            totals[name] += value
    return pay(totals, 100_000_000, MINIMUM)


def of(site: str) -> Statement:
    return statement(
        study="heart-1",
        site=site,
        account=f"institution:{site}",
        round_values=ROUNDS,
        payments=payments(),
        minimum_share=MINIMUM,
    )


def test_a_paid_site_reads_rounds_value_share_and_reward() -> None:
    written = of("cleveland")
    assert written.outcome == "paid"
    assert written.value == Fraction(39, 100)
    assert written.round_values == {1: Fraction(3, 10), 2: Fraction(1, 10), 3: Fraction(-1, 100)}
    assert written.reward == payments().rewards["cleveland"]
    assert "3 of 3 rounds" in written.sentence
    assert "-0.390000 nats" in written.sentence
    assert f"{float(written.share):.2%}" in written.sentence
    assert "79.429735 credits of the pool of 100 credits" in written.sentence


@pytest.mark.parametrize(
    ("site", "outcome", "phrase"),
    [
        ("va", "no-positive-value", "owes nothing"),
        ("tiny", "below-minimum", "below the plan's minimum of 5.00%"),
        ("absent", "not-taken-part", "0 of 3 rounds"),
    ],
)
def test_an_unpaid_site_reads_why(site: str, outcome: str, phrase: str) -> None:
    written = of(site)
    assert written.outcome == outcome
    assert written.reward == 0
    assert phrase in written.sentence


def test_a_value_that_may_be_chance_earns_nothing_and_reads_why() -> None:
    totals = {"cleveland": Fraction(4, 10), "hungary": Fraction(1, 10), "va": Fraction(-1, 10)}
    errors = {"cleveland": Fraction(1, 10), "hungary": Fraction(1, 10), "va": Fraction(1, 10)}
    paid = pay(lower_bounds(totals, errors, Decimal("1.65")), 100_000_000, MINIMUM)
    told = {
        site: statement(
            study="heart-1",
            site=site,
            account=f"institution:{site}",
            round_values={1: totals},
            payments=paid,
            minimum_share=MINIMUM,
            errors=errors,
            z=Decimal("1.65"),
        )
        for site in totals
    }
    assert {site: each.outcome for site, each in told.items()} == {
        "cleveland": "paid",
        "hungary": "not-sure",
        "va": "no-positive-value",
    }
    assert told["hungary"].reward == 0
    assert "takes 1.65 standard errors off, 0.165000, and pays for what is left: -0.065000" in told["hungary"].sentence
    assert "not more than chance could have brought: it earned nothing, and owes nothing" in told["hungary"].sentence
    assert "100.00% of what is sure of all together" in told["cleveland"].sentence
    assert "standard error" not in told["va"].sentence
    assert told["hungary"].to_json()["lower_bound"]["bound_exact"] == "-13/200"


def test_what_was_burned_is_said() -> None:
    assert "burned" in of("hungary").sentence
    assert of("hungary").burned == payments().burned > 0


def test_the_json_form_has_money_as_integers_and_every_round() -> None:
    document = of("hungary").to_json()
    assert document["reward_microcredits"] + 0 == payments().rewards["hungary"]
    assert isinstance(document["reward_microcredits"], int)
    assert document["value_exact"] == "1/10"
    assert [entry["admitted"] for entry in document["rounds"]] == [True, False, False]
    assert document["rounds"][1]["value"] == 0.0


def test_a_stranger_has_no_statement() -> None:
    with pytest.raises(OperatorError) as caught:
        of("stranger")
    assert "cleveland" in caught.value.remedy


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_statement_says_by_which_method_and_promises_a_measured_change_only_where_values_add_up(method: str) -> None:
    written = statement(
        study="heart-1",
        site="cleveland",
        account="institution:cleveland",
        round_values=ROUNDS,
        payments=payments(),
        minimum_share=MINIMUM,
        method=method,
    )
    assert written.to_json()["method"] == method
    assert ("changed the model's log loss" in written.sentence) == (method == "shapley")
    assert ("of all improvements" in written.sentence) == (method == "shapley")
    assert METHOD_WORDS[method]
