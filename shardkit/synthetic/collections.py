"""Small trees in the shape of public collections, with the traps of each: what their tables and files really hold.

Names, tables and counts are made up, in the form of the published ones; a tree is a pure function of its name.
"""

import json
from collections.abc import Callable
from pathlib import Path

from shardkit.synthetic.tree_writer import TreeWriter


def make_collection(name: str, folder: Path) -> None:
    """Write a small tree in the shape of a collection.

    Parameters
    ----------
    name : str
        One of `TREES`.
    folder : Path
        Where to.
    """
    TREES[name](TreeWriter(folder))


def _nih14(to: TreeWriter) -> None:
    """Six images of four patients; one RGBA, one of which the table knows nothing, one that is not there."""
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    said = [
        ("00000001_000.png", "Cardiomegaly", 0, 1, "058Y", "M", "PA"),
        ("00000001_001.png", "Cardiomegaly|Emphysema", 1, 1, "058Y", "M", "PA"),
        ("00000002_000.png", "No Finding", 0, 2, "411Y", "F", "AP"),
        ("00000003_000.png", "Hernia|Infiltration", 0, 3, "009M", "F", "PA"),
        ("00000004_000.png", "Mass", 0, 4, "081Y", "M", "PA"),
        ("00000005_000.png", "No Finding", 0, 5, "070Y", "M", "AP"),
    ]
    to.table("Data_Entry_2017.csv", header, [(*row, 2682, 2749, 0.143, 0.143, "") for row in said])
    for name, *_ in said[:4]:
        to.png(f"images_001/images/{name}")
    to.rgba("images_002/images/00000004_000.png")
    to.png("images_002/images/00000030_001.png")
    to.put("train_val_list.txt", "00000001_000.png\n00000001_001.png\n00000002_000.png\n")
    to.put("test_list.txt", "00000003_000.png\n00000004_000.png\n00000005_000.png")
    boxes = [("00000003_000.png", "Infiltrate", 9.5, 20.25, 30, 40), ("00000004_000.png", "Mass", 1, 2, 3, 4)]
    to.table("BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", boxes)
    to.put("README_CHESTXRAY.pdf", b"%PDF-1.4\n")


def _chexpert(to: TreeWriter) -> None:
    """Five images of three patients, and one of the test part, whose table has no views."""
    findings = (
        "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
        "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
    )
    root, header = "CheXpert-v1.0-small", f"Path,Sex,Age,Frontal/Lateral,AP/PA,{findings}"
    edema = [None] * 5 + ["-1.0"] + [None] * 4 + ["1.0", None, "0.0", None]
    healthy = ["1.0"] + [None] * 12 + ["0.0"]
    said = [
        (f"{root}/train/patient00001/study1/view1_frontal.jpg", "Female", 68, "Frontal", "AP", *edema),
        (f"{root}/train/patient00001/study1/view2_lateral.jpg", "Female", 68, "Lateral", None, *edema),
        (f"{root}/train/patient00001/study2/view1_frontal.jpg", "Female", 68, "Frontal", "PA", *healthy),
        (f"{root}/train/patient00002/study1/view1_frontal.jpg", "Unknown", 0, "Frontal", "LL", *healthy),
    ]
    valid = [(f"{root}/valid/patient64541/study1/view1_frontal.jpg", "Male", 73, "Frontal", "AP", *["0.0"] * 14)]
    tested = [(f"{root}/test/patient64741/study1/view1_frontal.jpg", *["1.0"] * 14)]
    to.table(f"{root}/train.csv", header, said)
    to.table(f"{root}/valid.csv", header, valid)
    to.table(f"{root}/test.csv", f"Path,{findings}", tested)
    for name, *_ in [*said, *valid, *tested]:
        to.jpeg(str(name))


def _mimic(to: TreeWriter) -> None:
    """Four images of three studies; one image without a view, one study without labels."""
    images = [
        ("02aa804e-bde0afdd", 10000032, 50414267, "PA", "train"),
        ("174413ec-4ec4c1f7", 10000032, 50414267, "LATERAL", "train"),
        ("2a2277a9-b0ded155", 10000032, 53189527, None, "train"),
        ("68b5c4b1-227d0485", 10000764, 57375967, "AP", "validate"),
    ]
    for name, patient, study, _, _ in images:
        to.jpeg(f"files/p10/p{patient}/s{study}/{name}.jpg")
    header = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns"
    rows = [(n, p, s, '"CHEST (PA, LAT)"', view, 3056, 2544) for n, p, s, view, _ in images]
    to.table("mimic-cxr-2.0.0-metadata.csv.gz", header, rows)
    to.table(
        "mimic-cxr-2.0.0-split.csv.gz",
        "dicom_id,study_id,subject_id,split",
        [(n, s, p, part) for n, p, s, _, part in images],
    )
    findings = (
        "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
        "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
    )
    labels = [
        (10000032, 50414267, *[""] * 8, "1.0", *[""] * 5),
        (10000764, 57375967, "-1.0", "1.0", "0.0", *[""] * 11),
    ]
    to.table("mimic-cxr-2.0.0-chexpert.csv.gz", f"subject_id,study_id,{findings}", labels)


def _padchest(to: TreeWriter) -> None:
    """Five rows, of which one image is broken and one missing; lists with spaces, empty strings and a null."""
    header = (
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
        "MethodProjection,Modality_DICOM,BitsStored_DICOM,Report,MethodLabel,Labels"
    )
    manual, network = "Manual review of DICOM fields", "resnet-50.t7"
    said = [
        ("11_aa.png", 0, 20140915, "s11", "p1", "1930.0", "F", "PA", manual, "CR", 12, "Physician", "['normal']"),
        (
            "12_bb.png",
            0,
            20140915,
            "s11",
            "p1",
            "1930.0",
            "F",
            "L",
            manual,
            "CR",
            12,
            "Physician",
            "\"['pseudonodule', ' nodule', '']\"",
        ),
        ("13_cc.png", 54, 20150101, "s13", "p2", "", "nan", "AP_horizontal", network, "DX", 10, "RNN_model", "nan"),
        ("14_dd.png", 54, 20150101, "s14", "p3", "1980.0", "O", "COSTAL", network, "DX", 12, "RNN_model", "[]"),
        ("15_ee.png", 54, 20150101, "s15", "p4", "1980.0", "M", "PA", network, "DX", 12, "RNN_model", "['']"),
    ]
    rows = [
        (i, image, place, day, study, who, born, sex, "nan", view, how, made, bits, " sin hallazg .", by, labels)
        for i, (image, place, day, study, who, born, sex, view, how, made, bits, by, labels) in enumerate(said)
    ]
    to.table("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header, rows)
    for image, bits in (("0/11_aa.png", 12), ("0/12_bb.png", 12), ("54/13_cc.png", 10)):
        to.png(image, bits)
    to.png("54/14_dd.png", 12, share=0.3)


def _vindr(to: TreeWriter) -> None:
    """Two training images of three readers each, a test image; DICOM that names no modality."""
    one, two, three = ("0" * 31 + str(k) for k in (1, 2, 3))
    header = "Lung Opacity,Nodule/Mass,No finding"
    read = [(one, "R1", 1, 0, 0), (one, "R2", 1, 1, 0), (one, "R3", 0, 0, 1)]
    read += [(two, f"R{k}", 0, 0, 1) for k in (1, 2, 3)]
    to.table("annotations/image_labels_train.csv", f"image_id,rad_id,{header}", read)
    to.table("annotations/image_labels_test.csv", f"image_id,{header}", [(three, 0, 1, 0)])
    corners = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
    drawn = [(one, "R1", "Lung Opacity", 10, 20, 40, 60), (two, "R1", "No finding", "", "", "", "")]
    to.table("annotations/annotations_train.csv", corners, drawn)
    to.table("annotations/annotations_test.csv", corners.replace("rad_id,", ""), [(three, "Nodule/Mass", 1, 2, 3, 5)])
    for name in (f"train/{one}.dicom", f"train/{two}.dicom", f"test/{three}.dicom"):
        to.dicom(name)


def _covidx(to: TreeWriter) -> None:
    """Five images of three sources, names with spaces, and a misspelt source."""
    to.put(
        "train_COVIDx9A.txt",
        "1 1-s2.0-S1684-001.jpg COVID-19 cohen\n"
        "COVID 100 COVID (100).png COVID-19 sirm\n"
        "2b9a2d9d 2b9a2d9d.png normal rsna\n"
        "gone gone.png pneumonia rsna\n",
    )
    to.put("test_COVIDx9A.txt", "4c1f 4c1f.png pneumonia rnsa\nMIDRC-7 MIDRC-7 a.png COVID-19 ricord\n")
    to.jpeg("train/1-s2.0-S1684-001.jpg")
    for name in ("train/COVID (100).png", "train/2b9a2d9d.png", "test/4c1f.png", "test/MIDRC-7 a.png"):
        to.png(name)


def _radiography(to: TreeWriter) -> None:
    """Two images of each of two classes with their masks, one of a third."""
    for name in ("COVID-1", "COVID-2", "Viral Pneumonia-1", "Viral Pneumonia-2", "Normal-1"):
        kind = name.rpartition("-")[0]
        to.png(f"COVID-19_Radiography_Dataset/{kind}/images/{name}.png")
        to.mask(f"COVID-19_Radiography_Dataset/{kind}/masks/{name}.png")
    to.put("COVID-19_Radiography_Dataset/COVID.metadata.xlsx", b"PK\x03\x04")


def _brats(to: TreeWriter) -> None:
    """Two training subjects, one of validation; masks, one under the name that it really has."""
    for subject, kinds in (("Training_001", ("flair", "t1")), ("Training_355", ("t1ce",)), ("Validation_001", ("t2",))):
        for kind in kinds:
            to.volume(f"BraTS20_{subject}/BraTS20_{subject}_{kind}.nii{'' if kind == 't1ce' else '.gz'}")
    to.volume("BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz")
    to.volume("BraTS20_Training_355/W39_1998.09.19_Segm.nii")
    others = ",".join(f"BraTS_{year}_subject_ID" for year in (2017, 2018))
    ids = f"Grade,{others},TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID"
    to.table(
        "name_mapping.csv",
        ids,
        [("HGG", "a", "b", "NA", "c", "BraTS20_Training_001"), ("LGG", "NA", "d", "e", "f", "BraTS20_Training_355")],
    )
    to.table(
        "survival_info.csv",
        "Brats20ID,Age,Survival_days,Extent_of_Resection",
        [("BraTS20_Training_001", 60.463, 289, "GTR"), ("BraTS20_Training_355", 33.5, "ALIVE (361 days later)", "NA")],
    )


def _mura(to: TreeWriter) -> None:
    """Four images of three studies, and what macOS leaves; tables without headers."""
    wrist, finger, hand = (
        "MURA-v1.1/train/XR_WRIST/patient00006/study1_positive",
        "MURA-v1.1/train/XR_FINGER/patient00006/study1_negative",
        "MURA-v1.1/valid/XR_HAND/patient11186/study1_negative",
    )
    for study, count in ((wrist, 2), (finger, 1), (hand, 1)):
        for k in range(count):
            to.png(f"{study}/image{k + 1}.png", region="hand")
    to.put(f"{wrist}/._image1.png", b"\0\5\26\7\0\2\0\0Mac OS X        ")
    for part, studies in (("train", (wrist, finger)), ("valid", (hand,))):
        to.table(f"MURA-v1.1/{part}_labeled_studies.csv", "", [(f"{one}/", int("positive" in one)) for one in studies])
        to.table(f"MURA-v1.1/{part}_image_paths.csv", "", [(f"{one}/image1.png",) for one in studies])


def _fracatlas(to: TreeWriter) -> None:
    """Four images, one truncated; boxes as COCO, and a split of the fractured."""
    header = "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique"
    rows = [
        ("IMG0000000.jpg", 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0),
        ("IMG0000019.jpg", 0, 1, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0),
        ("IMG0000025.jpg", 1, 1, 0, 0, 1, 1, 0, 1, 2, 1, 1, 0),
        ("IMG0000031.jpg", 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1),
    ]
    to.table("FracAtlas/dataset.csv", header, rows)
    for name, part, share in zip([row[0] for row in rows], "NFFN", (1, 1, 1, 0.5), strict=True):
        to.jpeg(f"FracAtlas/images/{'Fractured' if part == 'F' else 'Non_fractured'}/{name}", "hand", share)
    coco = {
        "images": [{"id": 0, "file_name": "IMG0000019.jpg", "width": 96, "height": 112}],
        "annotations": [{"id": 0, "image_id": 0, "bbox": [10.5, 20, 30, 40], "category_id": 0}],
    }
    to.put("FracAtlas/Annotations/COCO JSON/COCO_fracture_masks.json", json.dumps(coco))
    to.table("FracAtlas/Utilities/Fracture Split/train.csv", "image_id", [("IMG0000019.jpg",)])
    to.table("FracAtlas/Utilities/Fracture Split/test.csv", "image_id", [("IMG0000025.jpg",)])


def _boneage(to: TreeWriter) -> None:
    """Two training images in a folder of its own name, one of the test part, whose table says it otherwise."""
    to.table("boneage-training-dataset.csv", "id,boneage,male", [(1377, 180, "False"), (1378, 12, "True")])
    to.table("boneage-test-dataset.csv", "Case ID,Sex", [(4360, "M")])
    for name in ("training-dataset/boneage-training-dataset/1377", "training-dataset/boneage-training-dataset/1378"):
        to.png(f"boneage-{name}.png", region="hand")
    to.png("boneage-test-dataset/4360.png", region="hand")


TREES: dict[str, Callable[[TreeWriter], None]] = {
    "nih14": _nih14,
    "chexpert": _chexpert,
    "mimic-cxr-jpg": _mimic,
    "padchest": _padchest,
    "vindr-cxr": _vindr,
    "covidx": _covidx,
    "covid19-radiography": _radiography,
    "brats20": _brats,
    "mura": _mura,
    "fracatlas": _fracatlas,
    "rsna-boneage": _boneage,
}
"""Collection -> what writes a tree of its shape."""
