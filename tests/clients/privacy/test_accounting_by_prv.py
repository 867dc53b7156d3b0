"""Two accountants that share no code on the events we charge: Opacus' PRV (Gopi et al. 2021), dp_accounting's PLD."""

from decimal import Decimal

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from opacus.accountants.prv import PRVAccountant

from federation.rules.accounting import epsilon, pld_epsilon
from federation.rules.events import GaussianEvent, PoissonEvent, RepeatedEvent, to_dp_event

DELTA = Decimal("1e-5")


@pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [("1", "0.01", 1000), ("2", "0.05", 200), ("4", "0.2", 100), ("6", "0.5", 50), ("1.5", "0.1", 30)],
)
def test_prv_and_loss_distributions_agree_within_one_percent_and_our_figures_are_not_below(
    noise: str, rate: str, steps: int
) -> None:
    sampled = PoissonEvent(rate=Decimal(rate), event=GaussianEvent(noise_multiplier=Decimal(noise)))
    event = RepeatedEvent(count=steps, event=sampled)
    prv = PRVAccountant()
    prv.history = [(float(noise), float(rate), steps)]
    by_prv = prv.get_epsilon(float(DELTA), eps_error=0.002)
    pld = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4)
    by_pld = pld.compose(to_dp_event(event)).get_epsilon(float(DELTA))
    assert by_pld == pytest.approx(by_prv, rel=0.01)
    ours = pld_epsilon([event], DELTA)
    assert ours >= by_pld * (1 - 1e-3)
    if Decimal(noise) > 1:  # with less noise ours is coarser, and above: time and memory are bounded
        assert ours == pytest.approx(by_prv, rel=0.01)
    assert epsilon([event], delta=DELTA, order=8) >= by_pld
