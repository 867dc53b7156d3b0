"""What a panel member's held-out people say of every institution, as whole numbers with noise.

**What is released.** One vector for the whole study: for each of N institutions the sum, over the held-out people, of
what its updates gained for that person (its Shapley value in the game of that person's utility, added up over the
rounds). A table of coalitions would be 2^N numbers a round.

**How far one person can move it.** A person adds one vector g of N numbers, and nothing else depends on that person:
people are held out by a hash of their pseudonyms, and the sum is divided by a nominal number. So adding or removing one
moves the sum by the length of g (L2). Without a bound that can be much: utilities lie between -B and 0 (B the plan's
``loss_bound``), and with the weights of the Shapley value

    |g| <= R B sqrt((1 + K^2) / N),    K = N / (2 sqrt(N - 1)) * sum over s = 1 .. N - 1 of 1 / sqrt(s (N - s))

in R rounds (:func:`longest`): for w of length 1 and mean m, ``w . phi`` is at most B times the sum over sizes s of the
mean, over coalitions S of that size, of the positive part of mean(w in S) - mean(w outside S). For 0 < s < N that
difference has mean 0 and variance at most (1 - N m^2) N / (s (N - s)(N - 1)); its positive part averages half of its
magnitude. Sizes 0 and N add |m|. The largest sum over m is the bound (Cauchy-Schwarz); for N = 2 it is reached.

Each g is therefore cut to the plan's ``valuation.panel.clip`` in length, as gradients are, and the sum moves by at most
that. Cutting keeps a vector's direction, so it biases sizes more than signs. Arithmetic and noise are those of
``lattice``: whole steps, the discrete Gaussian, and rounding counted in the sensitivity.
"""

import math
from decimal import Decimal
from typing import Final

import numpy as np
import torch

from clients.privacy.lattice import AT_ONCE, SUBJECTS_MAX, clipped_sum, noise_std
from clients.privacy.noise import STD_MAX, NoiseSource
from federation.errors import PrivacyError
from federation.rules.fixedpoint import Floats, Integers

_FAULT: Final = "This is a fault of the plan or of the node's software: nothing was sent."


def noisy_scores(gains: Floats, *, clip: Decimal, noise_multiplier: Decimal, noise: NoiseSource) -> Integers:
    """The noised sum of the people's clipped vectors.

    Args:
        gains: float64 [N, S] in nats: of each institution, for each held-out person; S may be 0.
        clip: the plan's ``valuation.panel.clip``, nats.
        noise_multiplier: of ``federation.rules.accounting.derive_scores_noise``.
        noise: where noise comes from.

    Returns:
        int64 [N], in steps of ``lattice.step_of(clip)`` nats.

    Raises:
        PrivacyError: more people than one sum holds, or more noise.
    """
    players, people = gains.shape
    std = noise_std(clip, players, noise_multiplier)
    if people > SUBJECTS_MAX or std > STD_MAX:
        raise PrivacyError("Scoring is refused: the sum does not hold so many people, or so much noise.", remedy=_FAULT)
    total = noise.discrete_gaussian(players, std)
    for start in range(0, people, AT_ONCE):
        part = np.ascontiguousarray(gains[:, start : start + AT_ONCE].T)
        total = total + clipped_sum(torch.from_numpy(part), clip)
    return total


def longest(players: int, *, rounds: int, loss_bound: Decimal) -> float:
    """How long one person's vector can be at most without a clip, in nats: the bound of the module's text."""
    if players == 1:
        return rounds * float(loss_bound)
    spread = math.fsum(1 / math.sqrt(size * (players - size)) for size in range(1, players))
    factor = players / (2 * math.sqrt(players - 1)) * spread
    return rounds * float(loss_bound) * math.sqrt((1 + factor**2) / players)
