"""AMN: better heat maps, learned from those that there are."""
