"""Pure rules of consent: records, purposes, decisions, commitments. ``now``, keys and salts are arguments."""
