"""The size that a compressed frame says it has, read before a decoder unpacks it.

Decoders make room for what the frame says, not for what the DICOM header says: a few kilobytes of JPEG-LS can ask for
gigabytes.
"""

JPEG_START, JPEG_2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# Start of frame: all of JPEG (ITU T.81, table B.1) but DHT, JPG and DAC, which share the range, and JPEG-LS (T.87).
FRAME_STARTS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def frame_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream; None of what is none of these, as RLE."""
    if frame.startswith(JPEG_2000_START):  # SIZ (T.800, A.5.1): length, capabilities, then the grid and its offset
        columns, rows, left, top = (int.from_bytes(frame[place : place + 4], "big") for place in range(8, 24, 4))
        return rows - top, columns - left
    if not frame.startswith(JPEG_START):
        return None
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker, length = frame[place + 1], int.from_bytes(frame[place + 2 : place + 4], "big")
        if marker in FRAME_STARTS:
            rows, columns = (int.from_bytes(frame[place + at : place + at + 2], "big") for at in (5, 7))
            return rows, columns
        place += 2 + length
    return None
