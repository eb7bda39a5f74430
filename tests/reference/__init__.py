"""Independent transcriptions of the reference that the tests hold the package to."""
