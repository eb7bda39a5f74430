"""Refinement: from the maps and seeds of a picture to masks that follow its edges."""
