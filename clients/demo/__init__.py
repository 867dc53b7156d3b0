"""The demo: real studies on published data, from a stranger's first command to a report."""
