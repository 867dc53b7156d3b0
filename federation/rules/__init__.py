"""Pure rules: no I/O, clock, randomness or network. ``now``, random bytes and keys are arguments."""
