"""Which series of a study is measured, and why the others are not; imports common and reading."""
