"""To the archive and back; imports choosing, common and reading."""
