"""Data sets as records, and the pipeline that turns records into batches."""
