"""Parts of an institution's people by a public rule, so that studies on different parts do not spend one budget.

The rule is the first bits of a hash of the pseudonym, and of nothing that data says: who belongs to a part cannot
depend on anything that a study learnt. A part is written as those bits: ``0`` and ``1`` are the halves, ``01`` is a
quarter within ``0``, and so on to sixteenths; the empty text is everybody. Two parts have people in common exactly if
one's bits begin with the other's. Under add or remove one subject, mechanisms on parts without common people compose in
parallel (McSherry, "Privacy integrated queries", 2009, theorem 4): each person loses what ran on parts that hold them.

A person keeps a part for as long as the pseudonym: consents are given to that pseudonym too, so a person under a new
one has no consent and is not used.
"""

from typing import Annotated, Final, TypeAlias

from pydantic import StringConstraints

from federation.rules.canonical import tagged_hash

BITS_MAX: Final = 4
Part: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[01]{1,4}$")]
EVERYBODY: Final = ""


def part_of(subject: str) -> str:
    """The sixteenth that a subject belongs to: four bits; those of ``tagged_hash("part", subject)``."""
    return f"{tagged_hash('part', subject.encode('utf-8'))[0]:08b}"[:BITS_MAX]


def holds(part: str, subject: str) -> bool:
    """Whether a subject belongs to a part; everybody belongs to the empty one."""
    return part_of(subject).startswith(part)


def overlap(left: str, right: str) -> bool:
    """Whether anybody can belong to both parts."""
    return left.startswith(right) or right.startswith(left)
