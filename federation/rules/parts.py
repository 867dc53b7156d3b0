"""Parts of an institution's people by a public rule, so that studies on different parts do not spend one budget.

The rule is the first bits of a hash of the pseudonym, and of nothing that data says: who belongs to a part cannot
depend on anything that a study learnt. A part is written as those bits: ``0`` and ``1`` are the halves, ``01`` is a
quarter within ``0``, and so on to sixteenths; the empty text is everybody. Two parts have people in common exactly if
one's bits begin with the other's. Under add or remove one subject, mechanisms on parts without common people compose in
parallel (McSherry, "Privacy integrated queries", 2009, theorem 4): each person loses what ran on parts that hold them.
Everybody but a part's people is written ``!`` and its bits: those are a part of the people too, though no plan asks for
them by that name.

A person keeps a part for as long as the pseudonym: consents are given to that pseudonym too, so a person under a new
one has no consent and is not used.
"""

from typing import Annotated, Final, TypeAlias

from pydantic import StringConstraints

from federation.rules.canonical import tagged_hash

BITS_MAX: Final = 4
Part: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[01]{1,4}$")]
EVERYBODY: Final = ""
_SIXTEENTHS: Final = tuple(f"{number:0{BITS_MAX}b}" for number in range(1 << BITS_MAX))


def part_of(subject: str) -> str:
    """The sixteenth that a subject belongs to: four bits; those of ``tagged_hash("part", subject)``."""
    return f"{tagged_hash('part', subject.encode('utf-8'))[0]:08b}"[:BITS_MAX]


def rest_of(part: str) -> str:
    """Everybody but the people of ``part``."""
    return f"!{part}"


def bits_of(part: str) -> int:
    """How many bits it takes to tell who belongs to a part."""
    return len(part.removeprefix("!"))


def within(bits: str, part: str) -> bool:
    """Whether whoever has these bits belongs to ``part``; there are at least :func:`bits_of` of them."""
    if part.startswith("!"):
        return not bits.startswith(part[1:])
    return bits.startswith(part)


def holds(part: str, subject: str) -> bool:
    """Whether a subject belongs to a part; everybody belongs to the empty one."""
    return within(part_of(subject), part)


def overlap(left: str, right: str) -> bool:
    """Whether anybody can belong to both parts."""
    return any(within(each, left) and within(each, right) for each in _SIXTEENTHS)
