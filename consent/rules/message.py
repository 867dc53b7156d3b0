"""Marks the sentences that readers see, so that the catalogs of :mod:`consent.language` hold each of them."""


def msg(text: str) -> str:
    """The English text itself. Extraction finds the call; the translation is looked up where the text is shown."""
    return text
