"""Pages that people open in a browser: one look, self-contained, nothing asked of the network."""
