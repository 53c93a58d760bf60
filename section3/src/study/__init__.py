"""One study from its files to its folder of outputs;
imports checks, choosing, common, measuring, objects, pages and reading."""
