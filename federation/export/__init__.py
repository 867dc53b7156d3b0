"""A study as plain files: written by the coordinator, verified by anybody, offline and without any database."""
