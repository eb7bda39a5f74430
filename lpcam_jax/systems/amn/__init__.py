"""AMN: improved heat maps, learned from existing ones."""
