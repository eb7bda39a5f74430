"""A system of somebody else, outside the package: heat maps of a classifier that looks at the best position only."""
