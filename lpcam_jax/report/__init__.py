"""What people look at: masks, pictures, curves and tables. NumPy in, files and text out."""
