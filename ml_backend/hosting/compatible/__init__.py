"""Modules that stand in for `label_studio_ml` 2.x where it is not installed.

Import nothing from here by this name: `hosting.installing` makes these files importable as
`label_studio_ml.model`, `.response` and `.utils`, and a module that is loaded under two names has
every class twice.
"""
