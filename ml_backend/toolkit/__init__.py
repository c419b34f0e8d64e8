"""Our predictions inside the label-studio-ml toolkit, for people who run that.

A toolkit project's `model.py` needs one line:

    from ml_backend.toolkit import CellBackend

It serves the toolkit's 1.0.9 and its 2.x. Importing it loads nothing but the standard library and
the toolkit itself.
"""

from ml_backend.toolkit.cell_backend import CellBackend

__all__ = ["CellBackend"]
