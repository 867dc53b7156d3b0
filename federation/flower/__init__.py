"""Flower on Accord's network: messages, a Grid over any ``Exchange``, and the strategy of a study's rounds."""
