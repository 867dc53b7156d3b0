"""Cosignatures for consent logs: asking the named witnesses, and being one for others."""
