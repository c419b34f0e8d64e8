"""The HTTP face: torch-free, answers Label Studio from the records alone."""
