"""May a number be shown: what is measured of an image and of what the model found, and its limits; imports common."""
