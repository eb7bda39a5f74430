"""From heat maps to pseudo masks: dense CRF, random walks among similar pixels, saliency."""
