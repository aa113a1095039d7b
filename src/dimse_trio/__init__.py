"""DICOM networking for Trio."""
