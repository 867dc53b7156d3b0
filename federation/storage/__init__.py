"""Where a party keeps what it must not lose: an SQLite database, append-only logs inside it, and a folder of blobs."""
