"""What made an image: the header's Modality, or what its SOP class tells where de-identification took that out."""

from pydicom.dataset import Dataset

from shardkit.sources.dicom import privacy

NONE = "NONE"
"""Stands for no modality among the modalities to take."""

_TERMS = (
    "ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT"
    " IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF"
    " RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG"
    " US VA XA XAPROTOCOL XC"
    " AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF"  # retired
)
CODES = frozenset(_TERMS.split())
"""Defined terms of Modality (0008,0060), PS3.3 C.7.3.1.1.1: the only values of it that may be shown."""

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
    """UID of the data set's SOP class, of the file meta where the data set has none; empty where neither has."""
    return privacy.text(dataset, "SOPClassUID") or privacy.text(dataset.file_meta, "MediaStorageSOPClassUID")


def effective(dataset: Dataset) -> str:
    """The modality: as stated, else by the SOP class of data set or file meta; empty where none of them tells."""
    stated = privacy.text(dataset, "Modality").upper()
    classes = privacy.text(dataset, "SOPClassUID"), privacy.text(dataset.file_meta, "MediaStorageSOPClassUID")
    return stated or next((_BY_CLASS[uid] for uid in classes if uid in _BY_CLASS), "")


def shown(modality: str) -> str:
    """A modality as it may be printed: a defined term, else "other"; "none" where there is none."""
    return modality if modality in CODES else "other" if modality else "none"
