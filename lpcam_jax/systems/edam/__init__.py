"""EDAM: heat maps that are learned by attention between two pictures that share a class."""
