"""What the systems share that are trained on masks and segment whole pictures."""
