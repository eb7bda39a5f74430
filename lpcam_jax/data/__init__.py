"""Data sets as records, and the way of records into batches."""
