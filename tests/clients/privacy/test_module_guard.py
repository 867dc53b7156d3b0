"""Modules that would break the bound on one subject are refused."""

import pytest
import torch
from torch import nn

from clients.privacy.module_guard import check_module
from federation.errors import PrivacyError

FEATURES, RECORDS = 8, 2


class SubtractsTheMean(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        return super().forward(input - input.mean(dim=0))


class LooksAtTheFirst(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        return super().forward(input) + input[:1].sum()


class Records(nn.Module):
    """Batch normalisation over the records' axis, its affine part frozen: Opacus accepts it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(RECORDS, dtype=torch.float64)
        self.out = nn.Linear(FEATURES, 1, dtype=torch.float64)
        for parameter in self.norm.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(x))


class WithBuffer(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, 1, dtype=torch.float64)
        self.register_buffer("seen", torch.zeros(1))


def linear(kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    return kind(FEATURES, 1, dtype=torch.float64)


def frozen() -> nn.Linear:
    module = linear()
    module.bias.requires_grad_(False)
    return module


def check(module: nn.Module) -> None:
    check_module(module, records=RECORDS, features=FEATURES)


@pytest.mark.parametrize(
    "module",
    [
        linear(),
        nn.Sequential(nn.Linear(FEATURES, 4, dtype=torch.float64), nn.ReLU(), nn.Linear(4, 1, dtype=torch.float64)),
    ],
)
def test_modules_that_keep_subjects_apart_pass(module: nn.Module) -> None:
    check(module)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (linear(SubtractsTheMean), "one subject's output changes"),
        (linear(LooksAtTheFirst), "one subject's output changes"),
        (Records(), "BatchNorm1d"),
        (nn.Sequential(linear(), nn.Dropout(0.5)), "Dropout"),
        (WithBuffer(), "buffers"),
        (frozen(), "not trained"),
    ],
)
def test_modules_that_mix_subjects_or_hold_more_are_refused(module: nn.Module, why: str) -> None:
    with pytest.raises(PrivacyError, match=why):
        check(module)
