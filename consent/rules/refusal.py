"""Why a consent document is refused: one error, with a code for machines.

The codes are words joined by hyphens (``duplicate-key``, ``wrong-signature``); docs/reference/consent-record.md lists
them all, and every document under tests/vectors/consent/must_fail is named after its own.
"""

from federation.errors import ConsentError


class RefusedRecordError(ConsentError):
    """A consent record, a receipt or a history that does not verify.

    Args:
        message: what is wrong, in one sentence.
        remedy: what to do next.
        reason: the code.
    """

    def __init__(self, message: str, *, remedy: str, reason: str) -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason

    @property
    def code(self) -> str:
        """As its parent: whoever handles errors by class sees one class of consent errors."""
        return ConsentError.__name__


def refused(why: str, *, reason: str) -> RefusedRecordError:
    """The error for a record that does not verify."""
    return RefusedRecordError(
        f"The consent record is refused: {why}.", remedy="Ask the person to sign a new record.", reason=reason
    )
