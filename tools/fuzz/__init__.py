"""Fuzzing of the build: damaged DICOM files, through a whole build, against decoders that are not ours."""
