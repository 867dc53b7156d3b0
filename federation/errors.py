"""Every error that Accord raises on purpose: one root, one subclass for each party that must act.

An error carries a sentence that says what happened, a remedy that says what to do next, and the exit code that the
command line ends with. Only the command line exits.
"""

from typing import ClassVar


class AccordError(Exception):
    """Root of all of Accord's errors.

    Args:
        message: what happened, in one sentence, with the place named.
        remedy: what the reader can do next, in one sentence.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def code(self) -> str:
        """The class's name, for machines (``--json``)."""
        return type(self).__name__


class OperatorError(AccordError):
    """The person at the keyboard must change an input: a file, an option, a plan, a folder. Exit code 2."""

    exit_code = 2


class UnprovenSignerError(AccordError):
    """All is consistent, but who signed it is not proven, as no key was given. Exit code 3."""

    exit_code = 3


class PeerError(AccordError):
    """Another party sent, or left, something that does not verify. Exit code 4."""

    exit_code = 4


class PrivacyError(AccordError):
    """The node refuses for privacy: the budget, the cohort's size, an unsafe model. Exit code 5."""

    exit_code = 5


class ConsentError(AccordError):
    """A consent record is missing, invalid, expired, withdrawn or does not cover the use. Exit code 6."""

    exit_code = 6


class UnavailableError(AccordError):
    """Something needed is not there now: a port in use, a peer that does not answer. Exit code 7."""

    exit_code = 7


class SupersededError(AccordError):
    """A standby leads the study: this coordinator was taken for gone, and must not go on. Exit code 8."""

    exit_code = 8
