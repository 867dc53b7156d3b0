"""What keeps a node from working on this machine, found before a study finds it."""
