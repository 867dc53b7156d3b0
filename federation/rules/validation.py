"""The sponsor's validation set: the commitment that a plan names, and its rows as numbers.

The set is a CSV file. Its exact bytes are committed under a fresh salt before the study opens; whoever gets salt and
bytes later can check that nothing was exchanged, and recompute every utility.
"""

import csv
import io
from typing import Final

from federation.errors import OperatorError
from federation.rules.canonical import tagged_hash
from federation.rules.encoding import SubjectBatch, by_subject, parse_rows
from federation.rules.study import StudyPlan

SALT_BYTES: Final = 32
"""Length of the salt; draw it from a cryptographically secure generator."""


def validation_commitment(salt: bytes, data: bytes) -> str:
    """What a plan names: H(salt, file bytes), 64 hexadecimal digits."""
    return tagged_hash("validation", salt, data).hex()


def read_validation(plan: StudyPlan, data: bytes) -> SubjectBatch:
    """The set's rows (CSV, UTF-8), checked against the plan's schema contract.

    Raises:
        OperatorError: not UTF-8, not CSV, or a row breaks the contract; line and column are named.
    """
    source = "The validation set"
    try:
        text = data.decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise OperatorError(
            f"{source} is not a CSV file in UTF-8: {error}.", remedy="Save the table as CSV in UTF-8."
        ) from error
    return by_subject(plan.schema_contract, parse_rows(plan.schema_contract, rows, source=source))
