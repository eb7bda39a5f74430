"""Backbones: pictures in, features of every stage out; exact on padded pictures, from weights that people have."""
