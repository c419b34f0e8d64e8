"""What the folder of a session holds."""

from __future__ import annotations

DATASET = "dataset"  # what it learns from, as it was settled
PREPARED = "prepared"  # its images as the network sees them
