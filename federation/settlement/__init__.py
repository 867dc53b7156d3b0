"""Settlement outside: what institutions earned, as a tree of claims that a contract on a chain pays. Optional.

Nothing else of Accord knows this room; without the extra ``chain`` the rest works as before. Nothing is sent from here.
"""
