"""One study from its files to its folder of outputs; imports common, reading, measuring, pages and objects."""
