"""What made an image: the header's Modality, or what its SOP class tells where de-identification took that out."""

from pydicom.dataset import Dataset

from shardkit.sources.dicom.elements import text

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Storage SOP classes of PS3.4 B.5 that one kind of machine writes. Secondary Capture and its like tell nothing.
_BY_CLASS = {
    _STORAGE + stem: code
    for code, stems in {
        "CR": "1",
        "DX": "1.1 1.1.1",
        "MG": "1.2 1.2.1 13.1.3 13.1.4 13.1.5",  # the last three are of breast tomosynthesis
        "IO": "1.3 1.3.1",
        "XA": "12.1 12.1.1 12.3 13.1.1",
        "RF": "12.2 12.2.1",
        "CT": "2 2.1 2.2",
        "MR": "4 4.1 4.3 4.4",
        "US": "3 3.1 6 6.1 6.2",
        "NM": "5 20",
        "PT": "128 128.1 130",
        "RTIMAGE": "481.1",
    }.items()
    for stem in stems.split()
}


def sop_class(dataset: Dataset) -> str:
    """Return the UID of the data set's SOP class, of the file meta where it has none; empty where neither has."""
    return text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")


def effective(dataset: Dataset) -> str:
    """Return the modality: as stated, else by the SOP class of data set or file meta; empty where none tells."""
    stated = text(dataset, "Modality").upper()
    classes = text(dataset, "SOPClassUID"), text(dataset.file_meta, "MediaStorageSOPClassUID")
    return stated or next((_BY_CLASS[uid] for uid in classes if uid in _BY_CLASS), "")
