"""What viewers sent and people corrected, kept for good, and what is learned from it;
imports archive, choosing, common, measuring, reading and study."""
