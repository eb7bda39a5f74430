"""psa: an affinity of pixels learned from heat maps, and pseudo masks by a random walk among similar ones."""
