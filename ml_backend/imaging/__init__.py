"""Images from their address to an array, and label images matched with each other.

Contract of every file in here: arguments are plain values (no settings object), nothing is read
from the environment, functions and objects may be used from many threads at once, and what goes
wrong with an image is an `ImageError` whose text is one sentence for the person who sees it.
Tokens appear in no message, log line or representation.
"""
