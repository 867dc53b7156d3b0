"""The consent pages: what a patient or a device owner, and a data protection officer, use in a browser."""
