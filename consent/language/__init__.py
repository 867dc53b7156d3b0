"""Texts in the reader's language: English, French and Portuguese."""
