"""Fed-Heart-Disease as FLamby prepares, splits and trains it, without privacy: the published figures, reproduced.

FLamby (Ogier du Terrail et al., NeurIPS 2022): rows with a gap in the first ten columns are left out, ``slope``, ``ca``
and ``thal`` are dropped, kinds of pain and electrocardiograms become indicators without the first, every column is
standardised, and two thirds of each centre train (stratified, seed 43). One linear layer and a sigmoid; pooled: Adam,
0.001, batches of 4, 50 epochs; FedAvg: 15 rounds of 100 steps of SGD, 0.001. Only here: standardising by a centre's own
rows uses private statistics, so that the recipe with privacy (``heart_private.py``) scales by public bounds instead.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CENTRES = ("cleveland", "hungarian", "switzerland", "va")
PUBLISHED = {"pooled": (0.783, 0.764, 0.750, 0.644), "FedAvg": (0.731, 0.719, 0.650, 0.640)}
SEEDS = range(42, 47)
SPLIT_SEED = 43
_TRAINING_SHARE = 0.66
_COLUMNS = 10
_PAIN, _CARDIOGRAM = 2, 6


@dataclass(frozen=True, slots=True)
class Centre:
    """One centre: its rows as the file has them (text, ten columns), labels, and which rows train or test."""

    rows: tuple[tuple[str, ...], ...]
    labels: NDArray[np.float64]
    training: NDArray[np.int64]
    held_out: NDArray[np.int64]


def centres(folder: Path) -> dict[str, Centre]:
    """The four centres, 740 rows, from ``processed.*.data``."""
    result: dict[str, Centre] = {}
    for name in CENTRES:
        lines = (folder / f"processed.{name}.data").read_text(encoding="utf-8").split()
        cells = [line.split(",") for line in lines]
        kept = [row for row in cells if not {"?", "NaN"} & {*row[:_COLUMNS], row[-1]}]
        labels = np.array([float(float(row[-1]) > 0) for row in kept])
        few = min((labels == 0).sum(), (labels == 1).sum()) <= 2
        training, held_out = train_test_split(
            np.arange(len(kept)),
            test_size=1 - _TRAINING_SHARE,
            train_size=_TRAINING_SHARE,
            random_state=SPLIT_SEED,
            stratify=None if few else labels,
        )
        rows = tuple(tuple(row[:_COLUMNS]) for row in kept)
        result[name] = Centre(rows, labels, np.sort(training), np.sort(held_out))
    return result


def reproduce(folder: Path, seeds: Sequence[int] = SEEDS) -> dict[str, NDArray[np.float64]]:
    """``pooled`` and ``FedAvg`` -> accuracy float64 [seeds, centres]."""
    data = centres(folder)
    inputs = {name: _inputs(centre) for name, centre in data.items()}
    own = {name: _standard(inputs[name], inputs[name][centre.training]) for name, centre in data.items()}
    every = np.concatenate([inputs[name][centre.training] for name, centre in data.items()])
    labels = np.concatenate([centre.labels[centre.training] for centre in data.values()])
    together = _tensors(_standard(every, every), labels)
    parts = [_tensors(own[name][centre.training], centre.labels[centre.training]) for name, centre in data.items()]
    figures: dict[str, list[list[float]]] = {"pooled": [], "FedAvg": []}
    for seed in seeds:
        torch.manual_seed(seed)
        first = nn.Sequential(nn.Linear(every.shape[1], 1), nn.Sigmoid())
        torch.manual_seed(seed)
        models = {"pooled": _pooled(copy.deepcopy(first), together), "FedAvg": _fed_avg(first, parts, seed)}
        for method, model in models.items():
            figures[method].append([_accuracy(model, own[name], centre) for name, centre in data.items()])
    return {method: np.array(rows) for method, rows in figures.items()}


def table(figures: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Markdown: published and reproduced beside each other."""
    lines = [
        "| accuracy, mean of 5 seeds | Cleveland | Hungary | Switzerland | VA |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for method, found in figures.items():
        for title, row in (("published", PUBLISHED[method]), ("here", found.mean(axis=0))):
            lines.append(f"| {method}, {title} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    return lines


def _inputs(centre: Centre) -> NDArray[np.float64]:
    """float64 [n, 13]: the eight numbers in order, then indicators of pain 2, 3, 4 and of cardiogram 1, 2."""
    cells = np.array(centre.rows, dtype=np.float64)
    numbers = np.delete(cells, (_PAIN, _CARDIOGRAM), axis=1)
    pain = cells[:, _PAIN, None] == np.array([2, 3, 4])
    cardiogram = cells[:, _CARDIOGRAM, None] == np.array([1, 2])
    return np.concatenate([numbers, pain, cardiogram], axis=1).astype(np.float64)


def _standard(rows: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = (rows - by.mean(axis=0)) / (by.std(axis=0, ddof=1) + 1e-9)
    return result


def _tensors(rows: NDArray[np.float64], labels: NDArray[np.float64]) -> TensorDataset:
    return TensorDataset(torch.tensor(rows, dtype=torch.float32), torch.tensor(labels[:, None], dtype=torch.float32))


def _pooled(model: nn.Module, data: TensorDataset) -> nn.Module:
    loader = DataLoader(data, batch_size=4, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for _ in range(50):
        for x, y in loader:
            _step(model, optimizer, x, y)
    return model


def _fed_avg(first: nn.Module, parts: Sequence[TensorDataset], seed: int) -> nn.Module:
    batches = [_forever(DataLoader(part, batch_size=4, shuffle=True)) for part in parts]
    share = [len(part) / sum(map(len, parts)) for part in parts]
    models = [copy.deepcopy(first) for _ in parts]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.001) for model in models]
    shared = [parameter.detach().clone() for parameter in first.parameters()]
    torch.manual_seed(seed)
    for _ in range(15):
        for model, optimizer, batch in zip(models, optimizers, batches, strict=True):
            _load(model, shared)
            for _ in range(100):
                _step(model, optimizer, *next(batch))
        states = [[parameter.detach() for parameter in model.parameters()] for model in models]
        shared = [sum(w * p for w, p in zip(share, of, strict=True)) for of in zip(*states, strict=True)]
    _load(first, shared)
    return first


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad()
    nn.functional.binary_cross_entropy(model(x), y).backward()
    optimizer.step()


def _forever(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from loader


def _load(model: nn.Module, values: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)


def _accuracy(model: nn.Module, rows: NDArray[np.float64], centre: Centre) -> float:
    with torch.no_grad():
        chances = model(torch.tensor(rows[centre.held_out], dtype=torch.float32)).numpy().ravel()
    return float(((chances > 0.5) == (centre.labels[centre.held_out] == 1)).mean())
