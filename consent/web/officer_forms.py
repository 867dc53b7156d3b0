"""Forms whose fields are named by where their value belongs (``words.en.title``), and what is wrong with one.

A document comes from such fields and goes back into them; a problem of the document is shown beside its field, in the
officer's language. Nothing is guessed: a field that is not known is a problem of the document like any other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from gettext import NullTranslations
from typing import Annotated, Any, Final

from fastapi import Depends
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.requests import Request

from consent.web.request import ConsentRequest

# Fields with several values: ticked boxes, and codes in one line.
_TICKED: Final = frozenset({"purposes", "data", "languages"})
_CODES: Final = frozenset({"codes", "codes_if_no", "diseases", "data_categories"})


async def _form(request: Request) -> FormData:
    return await request.form(max_fields=400, max_files=1)


Form = Annotated[FormData, Depends(_form)]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field; ``field`` is empty where it is wrong with the whole."""

    field: str
    text: str


def nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The document of a form's fields. A level whose names are 0, 1, 2, ... becomes a list."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if not isinstance(value, str):
            continue  # a file is read by who asked for it
        *path, last = name.split(".")
        level = made
        for part in path:
            below = level.setdefault(part, {})
            if not isinstance(below, dict):
                break
            level = below
        if last in _TICKED and not path:
            level.setdefault(last, []).append(value)
        elif last in _CODES:
            level[last] = value.replace(",", " ").split()
        elif path == ["conditions"]:
            level[last] = [part.strip() for part in value.split(";") if part.strip()]
        else:
            level[last] = value.replace("\r\n", "\n")
    return {name: _listed(value) for name, value in made.items()}


def fields_of(asked: ConsentRequest) -> dict[str, str]:
    """A request as the fields of a form; :func:`nested` gives its document again."""
    found: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, below in value.items():
                walk(f"{prefix}.{name}" if prefix else name, below)
        elif isinstance(value, list) and prefix.rpartition(".")[2] in _CODES:
            found[prefix] = " ".join(value)
        elif isinstance(value, list) and prefix.startswith("conditions."):
            found[prefix] = "; ".join(value)
        elif isinstance(value, list):
            for place, below in enumerate(value):
                walk(f"{prefix}.{place}", below)
        else:
            found[prefix] = str(value)

    walk("", asked.model_dump(mode="json"))
    return found


def problems_of(error: ValidationError, catalog: NullTranslations) -> list[Problem]:
    """Every problem of a document, each with the name of its field."""
    _ = catalog.gettext
    texts = {
        "missing": _("Please fill this in."),
        "string_too_short": _("Please fill this in."),
        "too_short": _("Please choose at least one."),
        "string_too_long": _("This is too long."),
        "too_long": _("These are too many."),
        "greater_than": _("This number is too small."),
        "greater_than_equal": _("This number is too small."),
        "less_than": _("This number is too large."),
        "less_than_equal": _("This number is too large."),
        "string_pattern_mismatch": _("This is not written in the form that is shown beside it."),
    }
    usual = _("This does not fit. Compare it with the example.")
    whole = _("Research on a named disease and the codes of its diseases belong together: fill in both or none.")
    found: dict[str, Problem] = {}
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        found.setdefault(name, Problem(name, texts.get(item["type"], usual) if name else whole))
    return list(found.values())


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    made = {name: _listed(below) for name, below in value.items()}
    if made and all(name.isdecimal() for name in made):
        return [made[name] for name in sorted(made, key=int)]
    return made
