"""Networks, one a file, and the import of their weights."""
