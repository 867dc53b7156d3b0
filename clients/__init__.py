"""What an institution runs: its data, its privacy budget, its node."""
