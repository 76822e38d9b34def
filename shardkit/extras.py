"""Which extras are installed; asking loads none of them."""

from importlib import metadata


def has_ocr() -> bool:
    """Say whether the extra `ocr` is installed, which reads text in images."""
    try:
        return bool(metadata.version("rapidocr")) and bool(metadata.version("onnxruntime"))
    except metadata.PackageNotFoundError:
        return False
