"""The command group ``accord consent``."""
