"""Our side of every contest; runs in .venv."""
