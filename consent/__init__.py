"""What people agreed to: records, decisions, the registry of an institution."""
