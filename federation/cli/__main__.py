"""``python -m federation.cli``: the same as the command ``accord``."""

from federation.cli.main import run

if __name__ == "__main__":
    run()
