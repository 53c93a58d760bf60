"""The HTTP service of viewers: images come and masks go; it imports common, measuring, reading and study."""
