"""To the archive and back; imports common and reading."""
