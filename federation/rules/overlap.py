"""How many people two institutions have in common, from one noised sketch of each: neither shows a record.

A person's records become numbers as training sees them, without the pseudonym: whoever is called otherwise in a copy is
found all the same. Their hash names one of ``buckets`` places and a sign; the sketch is the sum over the people, a
count sketch (Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002, section 3). One person
moves one place by one, so its L2 sensitivity is 1, and discrete Gaussian noise makes it private for whoever sees it
(Pagh and Thorup, "Improved utility analysis of private CountSketch", 2022). All that follows is post-processing.

The inner product of two noised sketches is an unbiased estimate of the common people: different hashes have independent
signs, and so has the noise. Its error is about the square root of the cohorts; without a trusted third party no private
estimate does much better (McGregor et al., "The limits of two-party differential privacy", 2010).

Left out: records that differ by anything, however little, have nothing in common here.
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np

from federation.errors import PeerError
from federation.rules.canonical import tagged_hash
from federation.rules.encoding import SubjectBatch
from federation.rules.fixedpoint import Integers

BUCKETS: Final = (16, 32, 64, 128, 256, 512, 1024)
PLACE_MAX: Final = 1 << 21
"""The largest count in a bucket; above it a sketch is refused, so that products are numbers of canonical JSON."""
_PLACE_BYTES: Final = 4


def person_hashes(batch: SubjectBatch) -> list[bytes]:
    """A hash of each subject's records, sorted among themselves, without the subject's name: S times 32 bytes.

    Equal values written differently ("63", "63.0") are equal here. Hashes may repeat: two people can be alike.
    """
    result = []
    for x, y, mask in zip(batch.x, batch.y, batch.mask, strict=True):
        records = [
            (np.append(row, label) + 0.0).astype("<f8").tobytes()  # + 0.0: one zero, not two
            for row, label, real in zip(x, y, mask, strict=True)
            if real
        ]
        result.append(tagged_hash("overlap-person", *sorted(records)))
    return result


def sketch_of(hashes: Iterable[bytes], buckets: int, seed: bytes) -> Integers:
    """The exact sketch: int64 [buckets]. It never leaves a site without noise.

    Args:
        hashes: one for each person (:func:`person_hashes`).
        buckets: one of :data:`BUCKETS`.
        seed: which hash function; both sides of a comparison need the same one.
    """
    result: Integers = np.zeros(buckets, dtype=np.int64)
    for each in hashes:
        drawn = tagged_hash("overlap-place", seed, each)
        result[int.from_bytes(drawn[:8], "big") % buckets] += 1 if drawn[8] & 1 else -1
    return result


def pack_sketch(sketch: Integers) -> bytes:
    """A sketch as bytes: each place as a signed little-endian integer of 4 bytes.

    Raises:
        ValueError: a place is beyond :data:`PLACE_MAX` (noise of the plan's size never comes near it).
    """
    if sketch.size and int(np.abs(sketch).max()) > PLACE_MAX:
        raise ValueError("a sketch leaves its range")
    return sketch.astype("<i4").tobytes()


def unpack_sketch(data: bytes, buckets: int) -> Integers:
    """The sketch that bytes hold: int64 [buckets].

    Raises:
        PeerError: another length, or a place out of range.
    """
    if len(data) != buckets * _PLACE_BYTES:
        raise _refused(f"it has {len(data)} bytes, and {buckets} places take {buckets * _PLACE_BYTES}")
    sketch: Integers = np.frombuffer(data, dtype="<i4").astype(np.int64)
    if int(np.abs(sketch).max()) > PLACE_MAX:
        raise _refused("a place is out of range")
    return sketch


def sketch_hash(packed: bytes, *, study: str, did: str) -> str:
    """What an institution commits to before it sees another sketch: 64 hexadecimal digits.

    The noise in a sketch has far more than 128 bits, so that nobody finds it by its hash; and as the hash is of the
    institution's name too, nobody can repeat another's commitment and show that one's sketch later.
    """
    return tagged_hash("overlap-sketch", study.encode("utf-8"), did.encode("ascii"), packed).hex()


def product(left: Integers, right: Integers) -> int:
    """The inner product of two sketches, exact; with noise an unbiased estimate of the people in common."""
    return sum(int(a) * int(b) for a, b in zip(left, right, strict=True))


def measured_size(square: int, buckets: int, noise_multiplier: Decimal) -> Fraction:
    """An unbiased estimate of how many people a noised sketch holds, from its product with itself.

    The noise adds ``buckets`` times its variance. People who are alike count by the square of how many they are.
    """
    return square - buckets * Fraction(noise_multiplier) ** 2


def beyond_chance(dot: int, squares: tuple[int, int], buckets: int, z: Decimal) -> bool:
    """Whether a product is above what two institutions without common people reach by chance, by ``z`` deviations.

    Without common people its variance is the product of the sketches' squared lengths over ``buckets``: signs are
    independent. Decided in integers.
    """
    return dot > 0 and Fraction(dot) ** 2 * buckets >= Fraction(z) ** 2 * squares[0] * squares[1]


def chance_error(sizes: tuple[int, int], buckets: int, noise_multiplier: Decimal) -> float:
    """The standard deviation of the product for institutions of these sizes without common people."""
    variance = float(noise_multiplier) ** 2
    return math.sqrt(buckets * (sizes[0] / buckets + variance) * (sizes[1] / buckets + variance))


def _refused(why: str) -> PeerError:
    return PeerError(f"A sketch is refused: {why}.", remedy="Ask its institution for the one that it committed to.")
