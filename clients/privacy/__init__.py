"""What protects a person: noise, training with per-subject clipping, the release, the budget."""
