"""What every document on the wire is made of: exact decimals, bounded texts, and a frozen base class."""

import tomllib
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)

from federation.rules.canonical import DEPTH_MAX, canonical_bytes


def plain_decimal(value: Decimal) -> str:
    """A decimal as the shortest plain string ("0.00001", "3"), one text for one number."""
    text = format(value, "f")  # exact, where normalize() would round to 28 digits
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _decimal(value: Any) -> Any:
    if isinstance(value, bool | float):
        raise ValueError("write the number as an integer or as a decimal")
    if isinstance(value, str | int):
        try:
            value = Decimal(value)
        except InvalidOperation as error:
            raise ValueError(f"{value!r} is not a decimal number") from error
    return value


def _finite(value: Decimal) -> Decimal:
    digits_max = 40
    if not value.is_finite() or len(value.as_tuple().digits) > digits_max or abs(value.adjusted()) > digits_max:
        raise ValueError("the number is not finite, or has too many digits")
    return value


Number = Annotated[Decimal, BeforeValidator(_decimal), AfterValidator(_finite), PlainSerializer(plain_decimal)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Did = Annotated[str, StringConstraints(pattern=r"^did:key:z[1-9A-HJ-NP-Za-km-z]{20,100}$")]
Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML that a person wrote; numbers with a point stay exact.

    Raises:
        ValueError: whatever is wrong with it, with the place where it is known.
    """
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    except InvalidOperation as error:
        raise ValueError("a number has too large an exponent") from error
    _check_depth(document, 0)
    return document


def _check_depth(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ValueError("it nests too deeply")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        _check_depth(item, depth + 1)


class Wire(BaseModel):
    """Base of the documents that travel: frozen, nothing extra."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_payload(self) -> bytes:
        """The document's canonical JSON bytes; fields without a value are left out (there are no nulls)."""
        return canonical_bytes(self.model_dump(mode="json", exclude_none=True))


def describe(error: ValidationError) -> str:
    """All problems of a document in one line, each with the place."""
    shown_max = 8
    parts = [
        f"{'.'.join(str(part) for part in item['loc']) or 'document'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()[:shown_max]
    ]
    more = error.error_count() - shown_max
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")
