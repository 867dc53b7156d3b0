"""The request that a new institution begins with: general medical research, in three languages, ready to be changed."""

import json
from importlib.resources import files
from typing import Any, Final

from consent.web.request import ConsentRequest

STARTER: Final = "research"


def starter_request(name: str, contact: str) -> ConsentRequest:
    """The first request of an institution that has none.

    Args:
        name: the institution, as people know it.
        contact: how to reach its data protection officer.
    """
    document = json.loads((files("consent.web") / "starter.json").read_text("utf-8"))
    return ConsentRequest.model_validate(_filled(document, {"{name}": name, "{contact}": contact}))


def _filled(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        for mark, word in words.items():
            value = value.replace(mark, word)
        return value
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    if isinstance(value, dict):
        return {name: _filled(item, words) for name, item in value.items()}
    return value
