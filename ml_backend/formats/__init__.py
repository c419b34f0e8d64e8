"""Label images as files of other programs: NumPy, TIFF, PNG, ImageJ, GeoJSON (QuPath), COCO.

Pure: arrays in, bytes out, nothing is fetched or run. Each format writes into a binary file that
can be sought, so that a large result is never held in memory twice.
"""
