"""Days and numbers as people type them."""

from datetime import datetime
from decimal import Decimal, InvalidOperation

from federation.errors import AccordError, OperatorError
from federation.rules.instant import parse_instant


def instant(text: str, where: str) -> datetime:
    """A day (``2027-11-22``, its first moment in UTC) or an instant (``2027-11-22T00:00:00Z``).

    Raises:
        OperatorError: any other text.
    """
    day_characters = 10
    try:
        return parse_instant(text if len(text) != day_characters else f"{text}T00:00:00Z")
    except AccordError as error:
        raise OperatorError(
            f"{where}: {text[:40]!r} is not a day or an instant.", remedy="Write 2027-11-22 or 2027-11-22T00:00:00Z."
        ) from error


def decimal(text: str, where: str) -> Decimal:
    """A positive decimal number from an option.

    Raises:
        OperatorError: any other text.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(0)
    if not value.is_finite() or value <= 0:
        raise OperatorError(f"{where}: {text[:40]!r} is not a positive number.", remedy="Write it as 3 or 0.00001.")
    return value
