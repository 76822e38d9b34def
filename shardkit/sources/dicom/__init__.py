"""DICOM bytes to uniform 16-bit radiographs, with a verdict for every file and no identifier kept."""
