"""Many studies, and the processes that work on them; imports common, reading and study."""
