"""Prototypes of any system whose network has features, maps that split them and weights that score them."""
