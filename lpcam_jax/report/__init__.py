"""Output for people: masks, pictures, curves, tables and pages. NumPy in, files and text out."""
