"""IRN: object edges learned from heat maps, and pseudo masks by a random walk that respects them."""
