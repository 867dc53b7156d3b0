"""A million steps of the ledger's state machine: ``python tests/fuzz/ledger_steps.py [--steps N]`` (``make fuzz``).

Every step is a transfer, right or wrong, beside books that are kept another way (``tests/bookkeeping.py``); after every
step all invariants are compared and the ledger is folded anew. Ends with an error at the first difference, with the
shortest sequence that shows it.
"""

import argparse
import platform
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bookkeeping import Bookkeeping

LENGTH = 50


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=1_000_000)
    wanted = options.parse_args().steps
    started = time.monotonic()
    while Bookkeeping.steps < wanted:
        run_state_machine_as_test(
            Bookkeeping,
            settings=settings(
                max_examples=1000,
                stateful_step_count=LENGTH,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
        print(f"{Bookkeeping.steps:>9,} steps, {time.monotonic() - started:.0f} s", flush=True)
    print(f"No difference. Python {platform.python_version()}, {platform.machine()}.")


if __name__ == "__main__":
    main()
