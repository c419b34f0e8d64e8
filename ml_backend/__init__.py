"""A Label Studio ML backend for microscopy."""

__version__ = "0.1.0"
