"""Models from a plan and their evaluation on a validation set, in numpy: no torch, so verifying stays light."""
