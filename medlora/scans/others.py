"""Files of other formats, told by their first bytes: a folder full of them is explained, not only refused."""

from __future__ import annotations

import struct
import zlib

_GZIP = b"\x1f\x8b"
_UNPACK, _CONVERT = "unpack it", "convert it to NIfTI"
_BEGINNINGS = {
    b"PK\x03\x04": f"a ZIP archive or an office document; of an archive: {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive: {_UNPACK}",
    b"Rar!\x1a\x07": f"a RAR archive: {_UNPACK}",
    b"BZh": f"compressed by bzip2: {_UNPACK}",
    b"\xfd7zXZ\0": f"compressed by xz: {_UNPACK}",
    b"NRRD000": f"NRRD: {_CONVERT}",
    b"\0\0\0\x01\0\0": f"FreeSurfer's MGH: {_CONVERT}",
    b"\x89HDF\r\n\x1a\n": "HDF5, as of MINC or MATLAB",
    b"MATLAB ": "a MATLAB file",
    b"\x93NUMPY": "a NumPy array",
    b"II*\0": "TIFF: convert it to PNG",
    b"MM\0*": "TIFF: convert it to PNG",
    b"GIF8": "GIF: convert it to PNG",
}


def format_of(start: bytes, size: int) -> str:
    """What a file of no format that is read here is, and what to do about it; empty where it is not known.

    Args:
        start: its first bytes.
        size: all of its bytes.
    """
    if start.startswith(_GZIP):
        try:
            inside = zlib.decompressobj(wbits=31).decompress(start, 1024)
        except zlib.error:
            return ""
        if inside[128:132] == b"DICM":
            return f"a gzipped DICOM file: {_UNPACK}"
        return _named(inside) or f"compressed by gzip: {_UNPACK}"
    if start.startswith(b"BM") and start[2:6] == struct.pack("<I", size % (1 << 32)):
        return "BMP: convert it to PNG"
    return _named(start)


def _named(start: bytes) -> str:
    if start[257:262] == b"ustar":
        return f"a tar archive: {_UNPACK}"
    # sizeof_hdr, extents and regular are the same in NIfTI, which is known by its magic (Analyze 7.5, dbh.h)
    if len(start) >= 348 and 348 in struct.unpack("<i", start[:4]) + struct.unpack(">i", start[:4]):
        return "Analyze 7.5, which does not tell left from right: convert it to NIfTI by a tool that knows"
    return next((name for beginning, name in _BEGINNINGS.items() if start.startswith(beginning)), "")
