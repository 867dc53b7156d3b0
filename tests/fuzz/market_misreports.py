"""Is there a market in which a lie pays? ``python tests/fuzz/market_misreports.py [--markets N]`` (``make fuzz``).

In every random market each institution tries about a dozen false prices; payments must stay within the budget and cover
what was asked. Ends with an error at the first market that breaks a promise.
"""

import argparse
import platform
import sys
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bargaining import gain_by_misreport, random_market

from federation.rules.market import select


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--markets", type=int, default=100_000)
    wanted = options.parse_args().markets
    started = time.monotonic()
    won = spent = budgets = 0
    for number in range(wanted):
        rng = Random(number)
        offers, budget = random_market(rng)
        selection = select(offers, budget)
        asked = {offer.party: offer.price for offer in offers}
        lie = gain_by_misreport(offers, budget, rng)
        kept = selection.spent <= budget and all(paid >= asked[name] for name, paid in selection.payments.items())
        if lie is not None or not kept:
            sys.exit(f"market {number}: {offers}, budget {budget}: {lie or selection}")
        won, spent, budgets = won + len(selection.payments), spent + selection.spent, budgets + budget
        if (number + 1) % 10_000 == 0:
            print(f"{number + 1:>9,} markets, {time.monotonic() - started:.0f} s", flush=True)
    print(f"No lie pays. {won / wanted:.2f} winners a market, {spent / budgets:.0%} of the budgets spent.")
    print(f"Python {platform.python_version()}, {platform.machine()}.")


if __name__ == "__main__":
    main()
