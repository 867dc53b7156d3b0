"""An institution's own files: registered by hash, read as text, checked against a study's contract."""
