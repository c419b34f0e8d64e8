"""`python -m ml_backend` is the command `ml-backend`."""

from ml_backend.cli import app

app(prog_name="ml-backend")
