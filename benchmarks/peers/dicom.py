"""DICOM files as they are, one a sample, read in the worker processes of a DataLoader."""

from pathlib import Path
from typing import Any

from benchmarks.peers.work import Record, Work, bucket_of, client, collate, loader


def read(job: Record, work: Work) -> Any:
    """Return a DataLoader; files of a bucket come through boto3. See `Peer.read`."""
    from torch.utils.data import Dataset

    place, files = job["place"], job["files"]
    opened: list[Any] = []  # one a worker: boto3's are not to be carried over a fork

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, at: int) -> Any:
            if place["kind"] != "s3":
                return work.dicom(files[at], Path(place["root"], files[at]).read_bytes())
            if not opened:
                opened.append(client(place))
            bucket, prefix = bucket_of(place)
            answer = opened[0].get_object(Bucket=bucket, Key=f"{prefix}/{files[at]}")
            return work.dicom(files[at], answer["Body"].read())

    import pydicom.pixels  # noqa: F401 - before the fork

    return loader(Images(), job, batch_size=job["batch"], shuffle=True, collate_fn=collate(job["task"]))
