"""Commands of an institution: one module for each noun."""
