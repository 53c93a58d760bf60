"""Many studies, and the processes that work on them; imports batches, choosing, common, reading and study."""
