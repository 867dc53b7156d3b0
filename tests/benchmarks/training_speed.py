"""The price of privacy in time: ``python tests/benchmarks/training_speed.py [--steps N]``.

One step of the shipped private training, by each engine, against the same step without privacy in the same run: the
same module in float64, the same Poisson draws, one gradient of the batch's mean loss, the same step; one thread. The
two are measured in turns, and the ratio is the median over the turns. Beside it: what the noise alone costs, and
how many numbers per second the discrete Gaussian gives.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from clients.privacy.audit.probe import audit_plan
from clients.privacy.dp_training import train
from clients.privacy.gradients import Engine
from clients.privacy.lattice import noise_std
from clients.privacy.noise import SecureNoise
from federation.learning.torch_models import build_module, load_parameters, subject_losses
from federation.rules.admission import parameter_count
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Floats
from federation.rules.study import StudyPlan

TURNS = 7
ENGINES: tuple[Engine, ...] = ("opacus", "torch-func")
MULTIPLIER = Decimal(6)
CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "linear, 30 features": (30, 256, {"family": "logistic"}),
    "linear, 30 features, 5 records a person": (30, 256, {"family": "logistic"}),
    "perceptron 30-64-1": (30, 256, {"family": "mlp", "hidden": [64]}),
    "perceptron 30-64-64-1": (30, 256, {"family": "mlp", "hidden": [64, 64]}),
    "convolutions 28 x 28, 8 and 16 filters": (784, 128, {"family": "cnn", "shape": [28, 28], "filters": [8, 16]}),
    "convolutions, 96 readings of 3 sensors": (
        288,
        128,
        {"family": "cnn", "channels": 3, "shape": [96], "filters": [8, 16]},
    ),
    "transformer of 2 layers, 32 readings of 3 sensors": (
        96,
        128,
        {"family": "transformer", "channels": 3, "length": 32, "width": 16, "heads": 2, "layers": 2, "hidden": 32},
    ),
}


def plan_of(name: str, steps: int) -> tuple[StudyPlan, int]:
    features, people, model = CASES[name]
    plan = audit_plan(1, records=5 if "records" in name else 1, training={"local_steps": steps, "learning_rate": "0.1"})
    document = plan.model_dump(mode="json", exclude_none=True, by_alias=True)
    document["schema"]["columns"] = [{"type": "numbers", "name": "x", "count": features, "low": "-1", "high": "1"}]
    return StudyPlan.model_validate(document | {"model": model}), people


def batch_of(plan: StudyPlan, people: int) -> SubjectBatch:
    rng, contract = np.random.default_rng(1), plan.schema_contract
    shape = (people, contract.records)
    x, y = rng.uniform(-1, 1, (*shape, contract.inputs)), (rng.random(shape) < 0.5).astype(np.float64)
    return SubjectBatch(tuple(f"p{number:05}" for number in range(people)), x, y, np.ones(shape))


def without_privacy(plan: StudyPlan, base: Floats, batch: SubjectBatch) -> Floats:
    """The same steps with the gradient of the whole batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    module = build_module(plan)
    load_parameters(module, torch.from_numpy(base))
    optimizer = torch.optim.SGD(module.parameters(), lr=float(plan.training.learning_rate))
    parts = [torch.from_numpy(part) for part in (batch.x, batch.y, batch.mask)]
    noise = SecureNoise()
    for _ in range(plan.training.local_steps):
        drawn = torch.from_numpy(noise.coins(len(batch.subjects), Fraction(plan.privacy.sampling_rate)))
        x, y, mask = (part[drawn] for part in parts)
        optimizer.zero_grad()
        loss = subject_losses(plan, module(x), y, mask).sum() / len(batch.subjects)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimizer.step()
    torch.set_num_threads(threads)
    return np.concatenate([part.detach().numpy().ravel() for part in module.parameters()]) - base


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def case(name: str, steps: int) -> str:
    plan, people = plan_of(name, steps)
    batch, parameters = batch_of(plan, people), parameter_count(plan)
    base = np.random.default_rng(2).normal(0, 0.1, parameters)

    def private(engine: Engine) -> object:
        return train(plan, base, batch, people, MULTIPLIER, SecureNoise(), engine=engine)

    ratios: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    plain: list[float] = []
    for turn in range(TURNS + 1):
        before = seconds(lambda: without_privacy(plan, base, batch))
        for engine in ENGINES:
            taken = seconds(lambda engine=engine: private(engine))  # type: ignore[misc] # bound now
            if turn:  # the first turn warms up
                ratios[engine].append(taken / before)
        plain += [before] if turn else []
    noise = seconds(
        lambda: [
            SecureNoise().discrete_gaussian(parameters, noise_std(plan.privacy.clip, parameters, MULTIPLIER))
            for _ in range(steps)
        ]
    )
    each = statistics.median(plain) / steps
    found = " | ".join(f"{statistics.median(ratios[engine]):.1f} x" for engine in ENGINES)
    return f"| {name} | {parameters:,} | {people} | {each * 1e3:.2f} ms | {found} | {noise / steps / each:.1f} x |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    print(
        "| model | parameters | people | a step without privacy | with, Opacus | with, torch.func | the noise alone |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in CASES:
        print(case(name, steps), flush=True)
    count = 1_000_000
    taken = seconds(lambda: SecureNoise().discrete_gaussian(count, Fraction(6 << 40)))
    print(f"\nExact discrete Gaussian noise: {count / taken / 1e6:.1f} million numbers a second.")
    print(f"Measured {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, torch {torch.__version__}.")


if __name__ == "__main__":
    main()
