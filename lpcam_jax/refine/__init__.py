"""From heat maps to pseudo masks: dense CRF, IRN's random walk, saliency."""
