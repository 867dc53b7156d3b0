"""Asking again: what changed in a notice since a person answered it, and whether their yes still counts."""

from dataclasses import dataclass

from consent.web.notices import Paragraph, changes, counting
from consent.web.officer_publishing import versions
from consent.web.state import Web
from consent.web.store import Notice


@dataclass(frozen=True, slots=True)
class Renewal:
    """A newer version of the notice that a person answered.

    ``changed`` is what officers say of each version since; ``stopped`` whether a yes that was given counts no longer.
    """

    notice: Notice
    answered: Notice
    changed: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    stopped: bool


def renewal(web: Web, ref: str, language: str) -> Renewal | None:
    """What a person should know of a newer version; None if they read the newest, or there is nothing to renew."""
    answers = web.store.answers(ref=ref)
    head = web.registry.head(ref)
    answer = next((item for item in answers if head is not None and item.digest == head.digest), None)
    if answer is None:
        return None
    newest = web.store.open_request(answer.request)
    if newest is None or newest.version <= answer.version:
        return None
    read = web.store.notice(answer.request, answer.version)
    found = versions(web.store, answer.request)
    granted = any(answer.answers[purpose.key] and purpose.codes for purpose in read.asked.purposes)
    return Renewal(
        notice=newest,
        answered=read,
        changed=tuple(
            web.store.notice(answer.request, item.number).change for item in found if item.number > read.version
        ),
        paragraphs=changes(read.asked, newest.asked, language),
        stopped=granted and read.version not in {item.number for item in counting(found)},
    )
