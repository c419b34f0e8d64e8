"""A stand-in for label-studio-ml 2.x, which is not on the package index; see README.md here."""
