"""What archives keep, as DICOM, and the proof that it says what was measured; imports common, reading and pages."""
