"""Masks as arrays, runs, outlines and polygons: pure, and shared by every file format.

Label Studio's results and the formats of other programs draw the same outlines: those that follow
pixel edges and are filled by the pixel-centre rule, so that a mask comes back as it was.
"""
