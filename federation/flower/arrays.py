"""Arrays that a stranger's program made: each is of numbers, and exactly as large as it says.

So reading one allocates no more than the bytes that came. NumPy's own reader evaluates a header as Python, and raises
whatever that raises; here a pattern takes it apart.
"""

import math
import re
from typing import Final

import numpy as np
from flwr.app import RecordDict

from federation.errors import PeerError

_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<descr>[<>|][biufc](?P<size>[0-9]{1,2}))', "
    rb"'fortran_order': (?:False|True), 'shape': \((?P<shape>(?:[0-9]{1,18}, ?){0,32}(?:[0-9]{1,18})?)\), \} *\n",
    re.DOTALL,
)
"""How NumPy begins a file with one array of numbers (format 1.0)."""
_LENGTH_END: Final = 10


def check_arrays(records: RecordDict) -> None:
    """Check every array of a message's content, or of an app's state.

    Raises:
        PeerError: one is not in NumPy's format, not of numbers, or not of the size or form that it names.
    """
    for record in records.array_records.values():
        for array in record.values():
            header = _HEADER.match(array.data)
            if array.stype != "numpy.ndarray" or header is None:
                raise _refused("is not one of numbers in NumPy's format")
            if header.end() != _LENGTH_END + int.from_bytes(header["length"], "little"):
                raise _refused("has a header of another length than it says")
            shape = tuple(int(size) for size in header["shape"].replace(b",", b" ").split())
            if len(array.data) - header.end() != math.prod(shape) * int(header["size"]):
                raise _refused("does not have as many numbers as it says")
            if tuple(array.shape) != shape or array.dtype != _name(header["descr"]):
                raise _refused("is not of the form that it names")


def _name(descr: bytes) -> str:
    try:
        return str(np.dtype(descr.decode("ascii")))
    except TypeError as error:
        raise _refused("is of numbers that do not exist") from error


def _refused(why: str) -> PeerError:
    return PeerError(f"An array is refused: it {why}.", remedy="Send arrays of numbers, as NumPy writes them.")
