"""What people look at, as pictures; imports common and measuring."""
