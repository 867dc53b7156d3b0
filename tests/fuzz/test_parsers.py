"""A short slice of ``make fuzz``: what is nearly right is read, or refused by one of the errors that are announced."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated
from parsers import Parser, parsers

EXAMPLES = 25
"""For each parser; ``make fuzz`` runs thousands."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Parser]]:
    with parsers(tmp_path_factory.mktemp("parsers")) as made:
        yield made


def test_every_parser_takes_its_own_documents(table: dict[str, Parser]) -> None:
    for name, parser in table.items():
        assert parser.seeds, name
        for seed in parser.seeds:
            parser.read(seed)


@settings(max_examples=EXAMPLES)
@given(start=st.integers(0, 2**64 - 1))
def test_what_is_nearly_right_is_read_or_refused(table: dict[str, Parser], start: int) -> None:
    for name, parser in table.items():
        rng = Random(f"{start} {name}")
        data = mutated(rng.choice(parser.seeds), rng)
        try:
            parser.read(data)
        except parser.raises:
            continue
        except Exception as error:
            error.add_note(f"{name}: {data!r}")
            raise
