import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.learning.evaluation import coalition_utilities, committed_utility, utility
from federation.learning.models import (
    batched_logits,
    initial_model,
    logits,
    parameter_count,
    parameter_names,
    parameter_shapes,
)
from federation.learning.torch_models import build_module, flat_parameters, load_parameters, subject_losses
from federation.rules.aggregation import coalition_models
from federation.rules.encoding import SubjectBatch, by_subject, parse_rows
from federation.rules.families import PARAMETERS_MAX
from federation.rules.fixedpoint import SCALE, from_fixed
from federation.rules.study import StudyPlan, plan_from_toml
from tests.federation.learning.test_models import plan
from tests.federation.rules.test_study import TOML

LOGISTIC = {"family": "logistic"}
MODELS = [
    LOGISTIC,
    {"family": "mlp", "hidden": [3]},
    {"family": "mlp", "hidden": [6, 2], "activation": "relu"},
    {"family": "mlp", "hidden": [2, 7, 5]},
    {"family": "cnn", "shape": [4], "filters": [3]},
    {"family": "cnn", "shape": [2, 2], "filters": [3, 2], "activation": "relu"},
    {"family": "cnn", "channels": 2, "shape": [2], "filters": [2, 2], "kernel": 5},
    {"family": "transformer", "length": 4, "width": 6, "heads": 2, "layers": 2, "hidden": 5},
    {"family": "transformer", "channels": 2, "length": 2, "width": 3, "hidden": 4, "activation": "tanh"},
]
each_model = pytest.mark.parametrize("spec", MODELS, ids=str)


def rows(count: int, seed: int = 0) -> SubjectBatch:
    rng = np.random.default_rng(seed)
    mask = np.ones((count, 2))
    mask[1:, 1] = rng.integers(0, 2, count - 1)
    x, y = rng.uniform(-1, 1, (count, 2, 4)), rng.integers(0, 2, (count, 2)).astype(np.float64)
    return SubjectBatch(tuple(f"s{index:03}" for index in range(count)), x * mask[:, :, None], y * mask, mask)


def test_an_mlp_has_weights_and_biases_layer_by_layer() -> None:
    study = plan(model={"family": "mlp", "hidden": [3, 2]})
    assert parameter_shapes(study) == {
        "hidden1.weight": (3, 4),
        "hidden1.bias": (3,),
        "hidden2.weight": (2, 3),
        "hidden2.bias": (2,),
        "output.weight": (1, 2),
        "output.bias": (1,),
    }
    names = parameter_names(study)
    assert parameter_count(study) == len(set(names)) == 26
    assert names[5] == "hidden1.weight[1, 1]"
    assert names[-1] == "output.bias[0]"


def test_an_mlp_starts_within_its_layers_scale() -> None:
    study = plan(model={"family": "mlp", "hidden": [200, 9]})
    first = initial_model(study, 7)
    assert np.array_equal(first, initial_model(study, 7))
    hidden, middle, last = np.split(first / SCALE, [200 * 5, 200 * 5 + 9 * 201])
    for part, inputs in ((hidden, 4), (middle, 200), (last, 9)):
        assert np.max(np.abs(part)) <= inputs**-0.5
        assert np.std(part) == pytest.approx((3 * inputs) ** -0.5, rel=0.5 if part is last else 0.1)


def test_a_plan_with_too_many_parameters_is_refused() -> None:
    columns = [{"type": "number", "name": f"c{index}", "low": 0, "high": 1, "missing": True} for index in range(512)]
    wide = {"subject": "patient_id", "columns": columns, "label": {"name": "ill", "negative": "0", "positive": "1"}}
    assert parameter_count(plan(schema=wide, model={"family": "mlp", "hidden": [256, 256]})) < PARAMETERS_MAX
    for column in columns:
        column |= {"type": "category", "categories": [str(index) for index in range(8)]}
        del column["low"], column["high"]
    with pytest.raises(ValidationError, match="more than 1048576 parameters"):
        plan(schema=wide, model={"family": "mlp", "hidden": [256]})


@each_model
def test_inputs_are_counted_as_they_are_encoded(spec: dict[str, Any]) -> None:
    assert plan(model=spec).schema_contract.inputs == 4


@each_model
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
@settings(max_examples=15)
def test_a_model_alone_and_among_others_has_the_same_logits(spec: dict[str, Any], seed: int, records: int) -> None:
    study, rng = plan(model=spec), np.random.default_rng(seed)
    models, x = rng.normal(size=(5, parameter_count(study))), rng.uniform(-1, 1, (records, 4))
    together = batched_logits(models, x, study.model)
    for row, params in enumerate(models):
        assert together[row].tobytes() == logits(params, x, study.model).tobytes()
        assert together[row, -1:].tobytes() == logits(params, x[-1:], study.model).tobytes()


@each_model
def test_numpy_and_torch_compute_the_same_model(spec: dict[str, Any]) -> None:
    study, data = plan(model=spec), rows(20)
    params = np.random.default_rng(1).normal(size=parameter_count(study))
    module = build_module(study)
    assert not torch.any(flat_parameters(module))
    load_parameters(module, torch.from_numpy(params))
    assert flat_parameters(module).numpy().tobytes() == params.tobytes()
    outputs = module(torch.from_numpy(data.x))
    assert outputs.shape == (20, 2, 1)
    assert outputs.dtype == torch.float64
    assert np.allclose(outputs[:, :, 0].detach().numpy(), logits(params, data.x, study.model), atol=1e-12)
    losses = subject_losses(study, outputs, torch.from_numpy(data.y), torch.from_numpy(data.mask))
    assert losses.shape == (20,)
    bound = study.valuation.loss_bound * 1000
    assert committed_utility(params, data, bound, study.model) / 2**40 == pytest.approx(
        -float(losses.detach().mean()), abs=1e-9
    )


@each_model
def test_modules_hold_nothing_but_the_parameters(spec: dict[str, Any]) -> None:
    study = plan(model=spec)
    state, module = torch.get_rng_state(), build_module(study)
    assert torch.equal(state, torch.get_rng_state())
    assert list(module.buffers()) == []
    assert sum(part.numel() for part in module.state_dict().values()) == parameter_count(study)
    with pytest.raises(ValueError, match="numbers for a module"):
        load_parameters(module, torch.zeros(parameter_count(study) + 1, dtype=torch.float64))


def test_a_subject_without_a_record_has_no_loss() -> None:
    study = plan(model=MODELS[1])
    zeros = torch.zeros((1, 2), dtype=torch.float64)
    outputs = torch.full((1, 2, 1), 3.0, dtype=torch.float64)
    assert float(subject_losses(study, outputs, zeros, zeros)) == 0


@each_model
def test_a_coalitions_utility_is_its_models(spec: dict[str, Any]) -> None:
    study, data, rng = plan(model=spec), rows(30), np.random.default_rng(3)
    base = initial_model(study, 1)
    updates = {site: rng.integers(-SCALE, SCALE, base.size) for site in "abcde"}
    weights = dict.fromkeys(updates, 1)
    players, bound = sorted(updates), study.valuation.loss_bound
    table = coalition_utilities(base, updates, weights, players, data, bound, model=study.model)
    models = from_fixed(coalition_models(base, updates, weights, players))
    assert table == tuple(committed_utility(model, data, bound, study.model) for model in models)
    assert len(set(table)) == 32


def test_an_mlp_plan_is_read_from_toml_and_has_one_hash() -> None:
    study = plan_from_toml(TOML.replace('family = "logistic"', 'family = "mlp"\nhidden = [8]'), source="plan.toml")
    assert StudyPlan.model_validate_json(study.to_payload()).plan_hash == study.plan_hash
    assert study.model.model_dump(mode="json") == {"family": "mlp", "hidden": [8], "activation": "tanh"}


def test_the_examples_in_the_reference_are_valid_plans() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "models.md").read_text(encoding="utf-8")
    examples = [tomllib.loads(part.split("```", 1)[0]) for part in page.split("```toml\n")[1:]]
    families = []
    for example in examples:
        document = tomllib.loads(TOML, parse_float=Decimal)
        for section, fields in example.items():
            document[section] = {**document[section], **fields} if section == "schema" else fields
        families.append(StudyPlan.model_validate(document).model.family)
    assert families == ["mlp", "cnn", "logistic", "logistic"]


@pytest.mark.parametrize(
    ("shape", "kernel", "filters"), [([7], 3, [2, 3]), ([5, 8], 3, [2]), ([9, 4], 5, [3, 2, 2]), ([2, 2], 5, [1])]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_on_grids_of_any_size_are_torch_s(
    shape: list[int], kernel: int, filters: list[int], channels: int
) -> None:
    spec = {"family": "cnn", "shape": shape, "kernel": kernel, "filters": filters, "channels": channels}
    numbers = channels * int(np.prod(shape))
    columns = [{"type": "numbers", "name": "pixel", "count": numbers, "low": 0, "high": 255}]
    label = {"name": "ill", "negative": "0", "positive": "1"}
    study = plan(schema={"subject": "patient_id", "columns": columns, "label": label}, model=spec)
    rng = np.random.default_rng(5)
    params, x = rng.normal(size=parameter_count(study)), rng.uniform(-1, 1, (6, 2, numbers))
    module = build_module(study)
    load_parameters(module, torch.from_numpy(params))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()[..., 0]
    np.testing.assert_allclose(logits(params, x, study.model), expected, rtol=0, atol=1e-12)


def test_a_convolution_s_parameters_are_named_by_filter_channel_and_place() -> None:
    study = plan(model={"family": "cnn", "shape": [2, 2], "filters": [2]})
    assert parameter_shapes(study) == {
        "conv1.weight": (2, 1, 3, 3),
        "conv1.bias": (2,),
        "output.weight": (1, 2),
        "output.bias": (1,),
    }
    assert parameter_names(study)[10] == "conv1.weight[1, 0, 0, 1]"


def test_a_convolution_of_another_size_than_the_rows_is_refused() -> None:
    with pytest.raises(ValidationError, match="a cnn of this shape takes 6 numbers, and a row holds 4"):
        plan(model={"family": "cnn", "shape": [2, 3], "filters": [2]})


def test_a_survival_loss_is_the_likelihood_of_the_time_over_all_intervals() -> None:
    """By hand: hazards of 1/2 in each of three intervals; one lived through two, the event of another came first."""
    label = {"type": "survival", "name": "days", "event": "died", "censored": "no", "happened": "yes"}
    label |= {"intervals": [10, 20, 30]}
    columns = [{"type": "number", "name": "age", "low": 0, "high": 100}]
    study = plan(schema={"subject": "patient_id", "columns": columns, "label": label})
    rows = [
        {"patient_id": "a", "age": "50", "days": "20", "died": "no"},
        {"patient_id": "b", "age": "50", "days": "3", "died": "yes"},
    ]
    contract = study.schema_contract
    batch = by_subject(contract, parse_rows(contract, rows, source="rows"))
    assert batch.divisors.tolist() == [3, 3]
    expected = np.log(2) * np.array([2 / 3, 1 / 3])
    outputs = torch.zeros((2, 3, 1), dtype=torch.float64)
    losses = subject_losses(study, outputs, torch.from_numpy(batch.y), torch.from_numpy(batch.mask))
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-12)
    assert utility(np.zeros(5), batch, Decimal(4)) == pytest.approx(-expected.mean(), rel=1e-12)
