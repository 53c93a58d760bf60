"""The service for viewers: images come, masks go;
it imports archive, checks, common, measuring, pages, reading, study and teaching."""
