"""IRN: edges learned from heat maps, and the pseudo masks that a random walk makes with them."""
