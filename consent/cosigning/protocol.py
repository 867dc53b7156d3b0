"""What travels between an institution and a witness of its consent log (``CONSENT_COSIGN``).

No consent travels, not even hidden: only sizes, roots and hashes of padded batches.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from federation.rules.checkpoint import SIZE_MAX
from federation.rules.merkle import PROOF_HASHES_MAX
from federation.rules.wire import Did, Sha256Hex, Wire

Note = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class CosigningRequest(Wire):
    """An institution shows the newest checkpoint of its consent log.

    ``old`` is its checkpoint, signed again, of the size that the witness cosigned last, and ``proof`` the consistency
    of both (RFC 6962); neither at first contact. Signing ``old`` again is the point: an institution whose log was
    rewritten would have to sign two trees of one size, which is evidence (``federation.rules.equivocation``).
    """

    version: Literal[1] = 1
    institution: Did
    checkpoint: Note
    old: Note | None = None
    proof: Annotated[tuple[Sha256Hex, ...], Field(max_length=PROOF_HASHES_MAX)] = ()


class CosigningReply(Wire):
    """The size that the witness cosigned last (0: none yet), and its cosignature line if that is the one shown."""

    version: Literal[1] = 1
    size: Annotated[int, Field(ge=0, le=SIZE_MAX)]
    cosignature: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
