"""What changes from one version of a notice to the next, and which versions still count.

Rules kept: the first version is material; so is every version that asks for other terms, whatever the officer says of
it; from a material version on, a grant given under an earlier one counts no longer, until the person has answered
again. What a person is shown of a change is computed from the two texts as they were rendered, word by word.
Pure: versions come from :mod:`consent.web.store`.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from consent.web.request import ConsentRequest, notice_hash, notice_text

_WORD: Final = re.compile(r"\s+|[^\s]+")
# Two changed passages that are nearer than this many words read better as one change.
_BRIDGE_WORDS_MAX: Final = 3


class Edit(StrEnum):
    """What happened to a passage."""

    SAME = "same"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that stayed, went or came."""

    edit: Edit
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph of a comparison, in reading order."""

    passages: tuple[Passage, ...]

    @property
    def changed(self) -> bool:
        """Whether anything in it went or came."""
        return any(passage.edit is not Edit.SAME for passage in self.passages)


@dataclass(frozen=True, slots=True)
class Version:
    """One published version of a request, as far as counting goes."""

    number: int
    asked: ConsentRequest
    material: bool


def compare(old: str, new: str) -> tuple[Paragraph, ...]:
    """Two texts, paragraph by paragraph and word by word.

    Leaving out what was removed gives ``new``'s words, leaving out what was added ``old``'s.
    """
    before, after = _paragraphs(old), _paragraphs(new)
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    found: list[Paragraph] = []
    for kind, start_old, end_old, start_new, end_new in matcher.get_opcodes():
        gone, come = before[start_old:end_old], after[start_new:end_new]
        if kind == "equal":
            found += [Paragraph((Passage(Edit.SAME, text),)) for text in come]
            continue
        # Paragraphs that stand at the same place are compared by words, the rest is wholly gone or wholly new.
        shared = min(len(gone), len(come))
        found += [Paragraph(_words(a, b)) for a, b in zip(gone, come, strict=False)]
        found += [Paragraph((Passage(Edit.REMOVED, text),)) for text in gone[shared:]]
        found += [Paragraph((Passage(Edit.ADDED, text),)) for text in come[shared:]]
    return tuple(found)


def changes(old: ConsentRequest, new: ConsentRequest, language: str) -> tuple[Paragraph, ...]:
    """:func:`compare` of two versions as a reader of ``language`` saw and sees them."""
    return compare(notice_text(old, old.language(language)), notice_text(new, new.language(language)))


def asks_otherwise(old: ConsentRequest, new: ConsentRequest) -> bool:
    """Whether two versions ask for other terms, so that a yes to one is no yes to the other."""

    def asked(request: ConsentRequest) -> object:
        fields = request.model_dump(mode="json", exclude={"words"})
        for purpose in fields["purposes"]:
            del purpose["words"]
        fields["controller"] = fields["controller"]["name"]  # a new telephone number is nobody's consent
        return fields

    return asked(old) != asked(new)


def unchanged(old: ConsentRequest, new: ConsentRequest) -> tuple[str, ...]:
    """The languages whose text says exactly what it said: a yes to it cannot be told from a yes to the old one."""
    both = [language for language in new.words if language in old.words]
    return tuple(language for language in both if notice_text(old, language) == notice_text(new, language))


def counting(versions: Sequence[Version]) -> tuple[Version, ...]:
    """The versions under which a grant still counts: the newest material one and all after it, oldest first."""
    ordered = sorted(versions, key=lambda version: version.number)
    start = 0
    for place, version in enumerate(ordered):
        if version.material or (place and asks_otherwise(ordered[place - 1].asked, version.asked)):
            start = place
    return tuple(ordered[start:])


def hashes(versions: Iterable[Version]) -> frozenset[str]:
    """The hash of every text of ``versions``, in every language."""
    return frozenset(notice_hash(version.asked, name) for version in versions for name in version.asked.words)


def superseded(*requests: Sequence[Version]) -> frozenset[str]:
    """The hashes of the texts under which a grant counts no longer.

    A text that came back counts again, and one that still counts for any of ``requests`` counts for all.
    """
    every = frozenset[str]().union(*(hashes(versions) for versions in requests))
    return every - frozenset[str]().union(*(hashes(counting(versions)) for versions in requests))


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n+", text) if part.strip()]


def _words(old: str, new: str) -> tuple[Passage, ...]:
    before, after = _WORD.findall(old), _WORD.findall(new)
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    passages: list[Passage] = []
    gone: list[str] = []
    come: list[str] = []

    def settle() -> None:
        if gone:
            passages.append(Passage(Edit.REMOVED, "".join(gone)))
        if come:
            passages.append(Passage(Edit.ADDED, "".join(come)))
        gone.clear()
        come.clear()

    codes = matcher.get_opcodes()
    for place, (kind, start_old, end_old, start_new, end_new) in enumerate(codes):
        same = kind == "equal"
        between = 0 < place < len(codes) - 1 and end_new - start_new <= _BRIDGE_WORDS_MAX
        if same and not between:
            settle()
            passages.append(Passage(Edit.SAME, "".join(after[start_new:end_new])))
        else:
            gone += before[start_old:end_old]
            come += after[start_new:end_new]
    settle()
    return tuple(passages)
