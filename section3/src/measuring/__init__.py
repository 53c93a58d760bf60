"""From a volume to numbers, without a word of DICOM; imports checks and common."""
