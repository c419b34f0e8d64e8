"""Networks and what happens around them: arrays in, arrays out.

Contract of every file in here: nothing is read from the environment, no random numbers but seeded
ones, no state in modules (Cellpose's own `eval` keeps some, so it is never called), the same input
gives the same output, and what is shared between threads says so. Files that import no torch say so
too.

Frames: *image frame* as in `ml_backend.domain`; *network frame* is the image resized so that its
objects have the diameter that the network was trained for. Flows point to an object's centre, are
in (Y, X) order and, as Cellpose's networks answer them, five times as long as a unit vector.
"""
