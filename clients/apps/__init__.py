"""A user's own Flower app: which files it is, what hash they have, who released which data set to it."""
