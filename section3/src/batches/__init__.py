"""Many studies at once, and the workers that measure them; imports common, reading and study."""
