"""The machine: devices, processes, files, locks, and errors of one line."""
