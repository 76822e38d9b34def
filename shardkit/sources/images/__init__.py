"""Image files that are not DICOM: PNG, JPEG, TIFF, and NIfTI volumes slice by slice. A module a format."""
