"""Classes of the label-studio-ml toolkit (its 2.x API) on our processes.

Only the engine and the trainer's subprocesses import anything from here: what it loads is a
person's own code, and may import, print and crash as it likes.
"""
