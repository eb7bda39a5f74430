"""What is claimed in RESULTS.md, as programs."""
