"""Everything that speaks Label Studio: label configs, results, RLE, and the client.

The conversion files are pure: arrays and JSON in, arrays and JSON out, no network, no files, no
clock. They share three rules. Pixels are those of the image frame (as the browser shows it),
(Y, X), and a pixel belongs to a shape when its centre does. Percent coordinates are 0..100 of the
frame's width (x) and height (y). What comes from a browser may be anything: it is bounded first
and answered with a `BadRequest` that names the region.

`controls`, `options` and `values` need neither numpy nor OpenCV beyond what `domain` imports, so
that the web process can read a label config without loading an image library.
"""
