"""Plans and agreements: every wrong field is named, one plan has one hash, and a signature binds exactly one plan."""

import tomllib
from decimal import Decimal
from importlib import resources
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import OperatorError, PeerError
from federation.rules.canonical import canonical_bytes, parse, sha256_hex
from federation.rules.envelope import sign
from federation.rules.explain import explain
from federation.rules.keys import PrivateKey
from federation.rules.study import (
    AGREEMENT_TYPE,
    PLAN_TYPE,
    Agreement,
    StudyPlan,
    open_agreement,
    open_plan,
    plan_from_toml,
    read,
)
from federation.rules.terms import ConsentTerms
from federation.rules.wire import plain_decimal

KEY = PrivateKey(bytes([1]) * 32)
OTHER = PrivateKey(bytes([2]) * 32)
TOML = """
name = "small"
title = "A small study"
sponsor = "sponsor"
origin = "accord.test/small"
code_approved = ["0000000000000000000000000000000000000000000000000000000000000000"]
[purpose]
duo = "DUO:0000007"
disease = "MONDO:0005010"
statement = "A test."
[schema]
subject = "patient"
label = { name = "ill", negative = "no", positive = "yes" }
[[schema.columns]]
type = "number"
name = "age"
low = 0
high = 100
[[schema.columns]]
type = "category"
name = "sex"
categories = ["f", "m"]
[model]
family = "logistic"
[privacy]
unit = "subject"
epsilon = 3
delta = "1e-5"
clip = 1.5
[training]
learning_rate = 0.25
[rounds]
count = 2
participants = 3
quorum = 2
deadline_s = 60
[cohort]
minimum = 5
[aggregation]
rule = "weighted-mean"
norm_bound = 10
[valuation]
method = "shapley"
utility = "negative-log-loss"
[reward]
pool_microcredits = 1000000
[validation]
rule = "every fifth row"
commitment = "1111111111111111111111111111111111111111111111111111111111111111"
"""
PLAN = plan_from_toml(TOML, source="plan.toml")
AGREEMENT = Agreement(
    study=PLAN.study_id, plan_hash=PLAN.plan_hash, site="ash", nominal_cohort=100, signed_at="2026-11-22T00:00:00Z"
)


def changed(**sections: Any) -> str:
    """The plan's hash after a change, by way of its document."""
    document = tomllib.loads(TOML, parse_float=Decimal)
    for name, value in sections.items():
        document[name] = {**document[name], **value} if isinstance(value, dict) else value
    return StudyPlan.model_validate(document).plan_hash


def test_a_plan_survives_signing_and_sending() -> None:
    plan, envelope = open_plan(PLAN.sign(KEY).to_bytes(), signer=KEY.public)
    assert plan == PLAN
    assert envelope.payload == PLAN.to_payload()
    assert plan.plan_hash == PLAN.plan_hash == sha256_hex(PLAN.to_payload())


def test_the_study_s_name_names_one_plan() -> None:
    assert PLAN.study_id == f"small-{PLAN.plan_hash[:12]}"
    assert changed(title="A small study") == PLAN.plan_hash
    hashes = {changed(title="Another"), changed(rounds={"deadline_s": 61}), changed(privacy={"epsilon": 2})}
    assert len(hashes | {PLAN.plan_hash}) == 4


def test_one_number_has_one_text_so_one_plan_has_one_hash() -> None:
    for epsilon in ("3", "3.0", "3.000", Decimal("3.00"), 3, "0.3e1"):
        assert changed(privacy={"epsilon": epsilon}) == PLAN.plan_hash
    for delta in ("0.00001", "1e-5", "10e-6", Decimal("0.000010")):
        assert changed(privacy={"delta": delta}) == PLAN.plan_hash


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=12))
def test_plain_decimals_are_exact_and_have_one_text(value: Decimal) -> None:
    text = plain_decimal(value)
    assert Decimal(text) == value
    longer = text + ("000" if "." in text else ".000")
    assert text == plain_decimal(Decimal(text)) == plain_decimal(Decimal(longer))
    assert not set(text) - set("-0123456789.")
    assert "." not in text or not text.endswith("0")
    assert text != "-0"


def test_the_payload_holds_no_null_and_no_float() -> None:
    parse(PLAN.to_payload())  # refuses floats
    assert b"null" not in PLAN.to_payload()
    assert b'"schema":' in PLAN.to_payload()


def test_a_text_that_is_not_toml_is_named_with_its_line() -> None:
    with pytest.raises(OperatorError, match=r"plan\.toml is not valid TOML.*line 3") as refused:
        plan_from_toml("a = 1\nb = 2\nc =\n", source="plan.toml")
    assert "accord study new" in refused.value.remedy


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 5000, "a" + ".a" * 5000 + " = 1", "a = 1e99999999999999999999"],
    ids=["nested", "dotted", "exponent"],
)
def test_toml_that_is_too_much_is_refused(text: str) -> None:
    with pytest.raises(OperatorError, match=r"plan\.toml is not valid TOML"):
        plan_from_toml(text, source="plan.toml")


WRONG = [
    ("epsilon = 3", "epsilon = 9", "privacy.epsilon"),
    ("epsilon = 3", "epsilon = 0", "privacy.epsilon"),
    ("epsilon = 3", "epsilon = nan", "privacy.epsilon"),
    ("epsilon = 3", "epsilon = inf", "privacy.epsilon"),
    ("epsilon = 3", "epsilon = true", "privacy.epsilon"),
    ("epsilon = 3", 'epsilon = "three"', "'three' is not a decimal number"),
    ("epsilon = 3", 'epsilon = "1e-400"', "too many digits"),
    ("epsilon = 3", "epsilom = 3", "privacy.epsilom"),
    ("epsilon = 3", "", "privacy.epsilon: Field required"),
    ('delta = "1e-5"', 'delta = "1e-4"', "privacy.delta"),
    ('delta = "1e-5"', "delta = 0", "privacy.delta"),
    ("clip = 1.5", "clip = -1", "privacy.clip"),
    ("clip = 1.5", "clip = 8000000", "must stay below 2^20"),
    ('unit = "subject"', 'unit = "record"', "privacy.unit"),
    ("quorum = 2", "quorum = 4", "rounds.quorum cannot be above rounds.participants"),
    ("count = 2", "count = 0", "rounds.count"),
    ("count = 2", "count = 2.5", "rounds.count"),
    ("deadline_s = 60", "deadline_s = 0", "rounds.deadline_s"),
    ("minimum = 5", "minimum = 0", "cohort.minimum"),
    ('name = "small"', 'name = "Small Study"', "name"),
    ('name = "small"', 'name = "small\\n"', "name"),
    ('duo = "DUO:0000007"', 'duo = "research"', "purpose.duo"),
    ('disease = "MONDO:0005010"', 'disease = "heart"', "purpose.disease"),
    ("low = 0", "low = 100", "column age: low must be below high"),
    ('categories = ["f", "m"]', 'categories = ["f", "f"]', "column sex: a category appears twice"),
    ('categories = ["f", "m"]', 'categories = ["f"]', "schema.columns.1.category.categories"),
    ('name = "sex"', 'name = "age"', "a column name appears twice"),
    ('name = "sex"', 'name = "ill"', "a column name appears twice"),
    ('name = "sex"', 'name = "patient"', "a column name appears twice"),
    ('type = "category"', 'type = "text"', "schema.columns.1"),
    ('family = "logistic"', 'family = "forest"', "model: Input tag 'forest'"),
    ('family = "logistic"', 'family = "logistic"\nhidden = [4]', "model.logistic.hidden"),
    ('family = "logistic"', 'family = "mlp"', "model.mlp.hidden"),
    ('family = "logistic"', 'family = "mlp"\nhidden = []', "model.mlp.hidden"),
    ('family = "logistic"', 'family = "mlp"\nhidden = [4, 4, 4, 4]', "model.mlp.hidden"),
    ('family = "logistic"', 'family = "mlp"\nhidden = [257]', "model.mlp.hidden.0"),
    ('family = "logistic"', 'family = "mlp"\nhidden = [4]\nactivation = "sine"', "model.mlp.activation"),
    ("pool_microcredits = 1000000", "pool_microcredits = -1", "reward.pool_microcredits"),
    ("pool_microcredits = 1000000", "pool_microcredits = 0.5", "reward.pool_microcredits"),
    ("[reward]", '[reward]\npay = "lower-bound"', "reward.z is needed with pay = lower-bound"),
    ("[reward]", "[reward]\nz = 2", "reward.z has no meaning with pay = value"),
    ("[reward]", '[reward]\npay = "lower-bound"\nz = 0', "reward.z"),
    ("[reward]", '[reward]\npay = "median"', "reward.pay"),
    ("norm_bound = 10", "norm_bound = 10\nweight_cap = 1.1", "aggregation.weight_cap"),
    ("norm_bound = 10", "norm_bound = 10\ntolerated = 0.2", "aggregation.tolerated has no meaning with weighted-mean"),
    ('rule = "weighted-mean"', 'rule = "trimmed-mean"', "aggregation.tolerated is needed with trimmed-mean"),
    ('rule = "weighted-mean"', 'rule = "multi-krum"\ntolerated = 0.5', "aggregation.tolerated"),
    ('rule = "weighted-mean"', 'rule = "multi-krum"\ntolerated = 0.3', "nobody would be tolerated"),
    ('rule = "weighted-mean"', 'rule = "median"', "aggregation.rule"),
    ('method = "shapley"', 'method = "owen"', "valuation.method"),
    ("participants = 3", "participants = 15", "valuation.sampling is needed with 15 participants"),
    ("participants = 3", "participants = 129", "rounds.participants"),
    ("[reward]", "[valuation.sampling]\nprecision = 0.001\n[reward]", "valuation.sampling has no meaning with 3 part"),
    ('commitment = "1111', 'commitment = "X111', "validation.commitment"),
    ("code_approved = [", "code_approved = []\nother = [", "code_approved"),
    ("[reward]", "[rewards]", "reward: Field required"),
]


@pytest.mark.parametrize(("before", "after", "named"), WRONG, ids=[f"{after} ({named})" for _, after, named in WRONG])
def test_a_wrong_field_is_named(before: str, after: str, named: str) -> None:
    assert before in TOML
    with pytest.raises(OperatorError) as refused:
        plan_from_toml(TOML.replace(before, after, 1), source="plan.toml")
    assert refused.value.message.startswith("plan.toml is not a valid study plan: ")
    assert named in refused.value.message
    assert "accord study validate" in refused.value.remedy


@pytest.mark.parametrize(
    ("participants", "change", "named"),
    [
        (100, ("", ""), ""),
        (128, ("precision", "coalitions_max = 8129\nprecision"), "shapley of 128 participants needs 8130 or more"),
        (44, ('"shapley"', '"banzhaf"'), "banzhaf of 44 participants needs 62042 or more, above the limit of 50000"),
        (20, ('"shapley"', '"banzhaf"'), ""),
        (100, ('"shapley"', '"leave-one-out"'), ""),
        (15, ('"shapley"', '"leave-one-out"'), "lower bounds of more than 14 participants need shapley"),
        (15, ("precision = 0.001", "precision = 0"), "valuation.sampling.precision"),
        (15, ("[valuation.sampling]", "[overlap]\n[valuation.sampling]"), "overlap cannot go with valuation.sampling"),
        (128, ('family = "logistic"', 'family = "mlp"\nhidden = [256, 256, 256]'), "at most 114688 parameters"),
    ],
)
def test_what_a_plan_of_many_institutions_cannot_have_together_is_named(
    participants: int, change: tuple[str, str], named: str
) -> None:
    text = TOML.replace("participants = 3", f"participants = {participants}")
    text = text.replace("[reward]", "[valuation.sampling]\nprecision = 0.001\n[reward]").replace(*change, 1)
    if "lower bounds" in named:
        text = text.replace("[reward]", '[reward]\npay = "lower-bound"\nz = 1')
    if not named:
        plan = plan_from_toml(text, source="plan.toml")
        assert "is valued from groups of them, drawn by a public rule from the log" in explain(plan)
        return
    with pytest.raises(OperatorError) as refused:
        plan_from_toml(text, source="plan.toml")
    assert named in refused.value.message


def test_all_problems_are_told_at_once_up_to_eight() -> None:
    text = TOML.replace("epsilon = 3", "epsilon = 99").replace("quorum = 2", 'quorum = "x"')
    with pytest.raises(OperatorError) as refused:
        plan_from_toml(text, source="plan.toml")
    assert "privacy.epsilon" in refused.value.message
    assert "rounds.quorum" in refused.value.message
    with pytest.raises(OperatorError, match="and 8 more"):
        plan_from_toml("", source="plan.toml")


def test_a_plan_by_another_signer_is_refused() -> None:
    with pytest.raises(PeerError, match="signed by"):
        open_plan(PLAN.sign(OTHER).to_bytes(), signer=KEY.public)


@pytest.mark.parametrize("epsilon", ["3.0", "03", 3, " 3"])
def test_a_plan_in_another_spelling_is_refused(epsilon: Any) -> None:
    document = parse(PLAN.to_payload())
    document["privacy"]["epsilon"] = epsilon
    with pytest.raises(PeerError, match="ambiguous"):
        open_plan(sign(canonical_bytes(document), PLAN_TYPE, KEY).to_bytes())


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'"plan"', b"null", b"not json"])
def test_a_signed_document_that_is_no_plan_is_a_peer_s_error(payload: bytes) -> None:
    with pytest.raises(PeerError):
        open_plan(sign(payload, PLAN_TYPE, KEY).to_bytes())


def test_a_plan_in_plain_language_says_how_updates_are_combined_and_valued() -> None:
    said = explain(plan_from_toml(TOML, source="plan.toml"))
    assert "Updates are averaged by nominal cohorts." in said
    assert "(Shapley values)" in said
    robust = TOML.replace('rule = "weighted-mean"', 'rule = "trimmed-mean"\ntolerated = 0.35')
    said = explain(plan_from_toml(robust.replace('"shapley"', '"leave-one-out"'), source="plan.toml"))
    assert "combined by trimmed-mean: each institution is one voice, and 35 % of them may be hostile" in said
    assert "(each by what would be missing without it)" in said
    median = TOML.replace('rule = "weighted-mean"', 'rule = "geometric-median"')
    assert "nearly half of them" in explain(plan_from_toml(median, source="plan.toml"))


def test_who_signs_reads_that_chance_is_not_paid_and_a_plan_that_pays_values_says_nothing_of_it() -> None:
    plan = plan_from_toml(TOML, source="plan.toml")
    assert "chance" not in explain(plan)
    assert b'"pay"' not in plan.to_payload(), "plans from before have the hash that they had"
    bounded = plan_from_toml(TOML.replace("[reward]", '[reward]\npay = "lower-bound"\nz = 1.65'), source="plan.toml")
    assert "from each value 1.65 standard errors are taken off" in explain(bounded)
    assert "can earn nothing; it never owes anything" in explain(bounded)


def test_an_agreement_survives_signing_and_sending() -> None:
    agreement, envelope = open_agreement(AGREEMENT.sign(KEY).to_bytes(), signer=KEY.public)
    assert agreement == AGREEMENT
    assert envelope.signer == KEY.public
    assert agreement.reward_account == "institution:ash"


def test_an_agreement_is_bound_to_its_signer_type_and_bytes() -> None:
    with pytest.raises(PeerError, match="signed by"):
        open_agreement(AGREEMENT.sign(KEY).to_bytes(), signer=OTHER.public)
    with pytest.raises(PeerError, match="of type"):
        open_agreement(sign(AGREEMENT.to_payload(), PLAN_TYPE, KEY).to_bytes())


@pytest.mark.parametrize(
    "change",
    [
        {"nominal_cohort": 0},
        {"nominal_cohort": 10**10},
        {"site": "Ash"},
        {"plan_hash": "0"},
        {"more": 1},
        {"version": 2},
    ],
)
def test_an_agreement_with_a_wrong_field_is_refused(change: dict[str, Any]) -> None:
    payload = canonical_bytes({**parse(AGREEMENT.to_payload()), **change})
    with pytest.raises(PeerError, match=f"A Agreement is refused: .*{next(iter(change))}"):
        open_agreement(sign(payload, AGREEMENT_TYPE, KEY).to_bytes())


@pytest.mark.parametrize(
    "change", [{"nominal_cohort": "100"}, {"nominal_cohort": True}, {"nominal_cohort": 10 * "0" + "1"}]
)
def test_a_document_in_another_spelling_is_refused(change: dict[str, Any]) -> None:
    payload = canonical_bytes({**parse(AGREEMENT.to_payload()), **change})
    with pytest.raises(PeerError, match="ambiguous"):
        read(Agreement, payload)


def test_documents_are_bounded() -> None:
    with pytest.raises(PeerError, match="more than the 100 allowed"):
        read(Agreement, AGREEMENT.to_payload(), max_bytes=100)


def test_what_a_study_declares_is_explained_to_who_signs() -> None:
    silent = plan_from_toml(TOML, source="plan.toml")
    declared = plan_from_toml(
        TOML.replace('statement = "A test."', 'statement = "A test."\ncommercial = false\ncountries = ["FR", "PT"]'),
        source="plan.toml",
    )
    assert "What it declares" not in explain(silent)
    assert "What it declares. commercial: no; countries: FR, PT." in explain(declared)


@pytest.mark.parametrize("kind", get_args(ConsentTerms.model_fields["kind"].annotation))
def test_who_must_have_signed_is_explained(kind: str) -> None:
    said = explain(plan_from_toml(f'{TOML}\n[consent]\nkind = "{kind}"', source="plan.toml"))
    assert ("Every person" in said) is (kind in {"consent", "hipaa-authorization"})
    assert " must have " in said


def test_the_template_shows_every_declaration() -> None:
    template = resources.files("federation.cli").joinpath("plan_template.toml").read_text("utf-8")
    begin, end = template.index("# What else the study declares"), template.index("[consent]")
    declarations = "\n".join(line.removeprefix("# ") for line in template[begin:end].splitlines()[1:])
    plan = plan_from_toml(TOML.replace('statement = "A test."', f'statement = "A test."\n{declarations}'), source="t")
    assert all(value is not None for value in plan.purpose.model_dump().values())
