"""How parties reach each other: one port, ``Exchange``, with a libp2p host and an in-memory twin behind it."""
