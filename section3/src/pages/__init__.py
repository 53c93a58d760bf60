"""What people look at, as pictures; imports checks, common and measuring."""
