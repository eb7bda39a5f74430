"""Folders of results: written picture by picture, continued after a stop, scored as a whole."""
