"""The coordinator: runs studies. Events in, log entries out; what the log does not hold was not decided."""
