"""Files of models on this machine: what they hold, what they are called, where they lie.

Nothing here needs torch, so that the web process can list models and hand their weights out.
"""
