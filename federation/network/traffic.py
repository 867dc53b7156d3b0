"""How many bytes of messages this process has sent and received, framing included, for its operators' figures."""

from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class Traffic:
    """Two counts that only grow."""

    sent: int = 0
    received: int = 0


TRAFFIC: Final = Traffic()
"""This process's own. Each is changed by the network's one thread, and read by anybody."""
