"""The network's rules, and the coordinator that runs studies."""
