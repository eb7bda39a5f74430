"""LPCAM: a classifier, its prototypes, and the heat maps made with them."""
