from __future__ import annotations

import os
import shutil
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from forefend.checks import InputError
from forefend.data import image_file
from forefend.data.image_file import decode, dimensions

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")


def paint(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (6, 6), (7, 12)])
def test_decode_crops_central_square(tmp_path: Path, shape: tuple[int, int]) -> None:
    height, width = shape
    array = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    size = min(shape)
    top, left = round((height - size) / 2), round((width - size) / 2)
    expected = array[top : top + size, left : left + size].transpose(2, 0, 1)
    assert np.array_equal(decode(paint(tmp_path / "p.png", array), size).numpy(), expected)


def test_decode_resizes_shorter_side(tmp_path: Path) -> None:
    halves = np.zeros((40, 80, 3), np.uint8)
    halves[:, 40:] = 200
    small = decode(paint(tmp_path / "p.png", halves), 10)
    assert small.shape == (3, 10, 10)
    assert (small[:, :, :4] == 0).all()
    assert (small[:, :, 6:] == 200).all()
    assert decode(tmp_path / "p.png", 64).shape == (3, 64, 64)


def test_decode_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = decode(paint(tmp_path / "p.png", stripes), 8)
    assert (small[:, :, 1:-1].float() - 100).abs().max() <= 2


def test_decode_converts_to_rgb(tmp_path: Path) -> None:
    gray = decode(paint(tmp_path / "g.png", np.full((8, 8), 7, np.uint8)), 8)
    assert gray.unique().tolist() == [7]
    assert gray.shape == (3, 8, 8)
    with pytest.raises(InputError, match="expected 8-bit"):
        decode(paint(tmp_path / "deep.png", np.full((8, 8), 700, np.uint16)), 8)


def test_decode_truncated_file_raises_with_its_name(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("p.jpg", "p.png"):
        path = paint(tmp_path / name, noise)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=f"{name} is not a readable image"):
            decode(path, 32)


@pytest.mark.parametrize("shape", [(64, 48), (31, 77), (500, 333), (20, 20), (224, 301)])
def test_decode_equals_resize_then_crop(tmp_path: Path, shape: tuple[int, int]) -> None:
    """The usual evaluation transform, computed as it is written."""
    array = noise(*shape)
    for size in (8, 32, 224):
        width, height = size * shape[1] // min(shape), size * shape[0] // min(shape)
        resized = Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)
        expected = np.array(resized.crop((left, top, left + size, top + size))).transpose(2, 0, 1)
        assert np.array_equal(decode(paint(tmp_path / "p.png", array), size).numpy(), expected)


def test_decode_narrow_image_takes_little_time(tmp_path: Path) -> None:
    path, started = paint(tmp_path / "p.png", noise(1, 60_000)), time.perf_counter()
    assert decode(path, 224).shape == (3, 224, 224)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_turns_image_by_its_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, 8:] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(upright).save(tmp_path / "p.png", exif=exif)
    bright = (decode(tmp_path / "p.png", 16)[0, ::8, ::8] > 100).int().flatten().tolist()
    # The quadrant that a viewer shows bright, by the definition of each orientation in EXIF 2.3.
    corner = {1: 1, 2: 0, 3: 2, 4: 3, 5: 2, 6: 3, 7: 1, 8: 0}[orientation]
    assert bright == [int(place == corner) for place in range(4)]


def test_decode_with_damaged_exif_reads_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / "p.jpg", exif=b"Exif\x00\x00MM\x00\xff damaged")
    assert decode(tmp_path / "p.jpg", 8).unique().tolist() == [90]


def test_decode_lays_transparent_pixels_over_white(tmp_path: Path) -> None:
    array = np.zeros((8, 8, 4), np.uint8)
    array[:, 4:] = (10, 20, 30, 255)
    clear = decode(paint(tmp_path / "p.png", array), 8)
    assert clear[:, 0, 0].tolist() == [255, 255, 255]
    assert clear[:, 0, 7].tolist() == [10, 20, 30]
    palette = Image.fromarray(np.zeros((8, 8), np.uint8), "P")
    palette.putpalette([9, 8, 7])
    palette.save(tmp_path / "opaque.png")
    palette.save(tmp_path / "clear.gif", transparency=0)
    assert decode(tmp_path / "opaque.png", 8)[:, 0, 0].tolist() == [9, 8, 7]
    assert decode(tmp_path / "clear.gif", 8, channels=1).unique().tolist() == [255]


def test_decode_converts_cmyk_and_two_levels(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "p.jpg")
    Image.new("1", (8, 8), 1).save(tmp_path / "p.png")
    assert decode(tmp_path / "p.jpg", 8).max() < 10
    assert decode(tmp_path / "p.png", 8, channels=1).unique().tolist() == [255]


def test_decode_reads_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (value, value, value)) for value in (40, 90)]
    for name in ("p.gif", "p.tiff", "p.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (decode(tmp_path / name, 8).float() - 40).abs().max() <= 2


def test_decode_other_format_runs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", program)
    monkeypatch.setattr("subprocess.check_call", program)
    (tmp_path / "p.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n%%EOF\n"
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "q.jpg", "PPM")
    for name in ("p.jpg", "q.jpg"):
        with pytest.raises(InputError, match=f"{name} is not an image of PNG, JPEG, WEBP, BMP, TIFF, GIF"):
            decode(tmp_path / name, 8)


def test_decode_too_large_image_raises_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (10_000, 20_000):  # Pillow itself warns of the first and refuses the second
        Image.new("1", (side, side)).save(tmp_path / "bomb.png")
        with pytest.raises(InputError, match="more than 89,000,000 pixels"):
            decode(tmp_path / "bomb.png", 8)
    monkeypatch.setattr(image_file, "MOST_BYTES", 10)
    with pytest.raises(InputError, match="bytes, expected at most 10"):
        decode(tmp_path / "bomb.png", 8)


def test_decode_pipe_or_device_raises(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.png")
    (tmp_path / "d.png").mkdir()
    (tmp_path / "z.png").symlink_to("/dev/zero")
    for name in ("p.png", "d.png", "z.png"):
        with pytest.raises(InputError, match=f"{name} is a folder, pipe or device"):
            decode(tmp_path / name, 8)
    shutil.rmtree(tmp_path / "d.png")
    with pytest.raises(InputError, match=r"d\.png is not a readable image \(FileNotFoundError\)"):
        decode(tmp_path / "d.png", 8)


def test_decode_without_memory_raises_memory_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(image_file, "_convert", full)
    with pytest.raises(MemoryError):
        decode(paint(tmp_path / "p.png", noise(8, 8)), 8)


def test_decode_pixels_of_0_and_1_are_black_and_white(tmp_path: Path) -> None:
    bits = np.zeros((8, 8), np.uint8)
    bits[:, 4:] = 1
    for name in ("p.png", "p.bmp", "p.tif"):
        assert decode(paint(tmp_path / name, bits), 8)[:, 0].tolist() == [[0] * 4 + [255] * 4] * 3
    Image.fromarray(bits).save(tmp_path / "one.png", bits=1)
    assert decode(tmp_path / "one.png", None, channels=1)[0, 0].tolist() == [0] * 4 + [255] * 4
    assert decode(paint(tmp_path / "black.png", 0 * bits), 8).max() == 0
    assert decode(paint(tmp_path / "dark.png", 2 * bits), 8).max() == 2


def test_decode_deep_png_in_color_keeps_its_high_bytes(tmp_path: Path) -> None:
    """A PNG of 16 bits in each of three channels, written by hand: Pillow writes none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = np.full((4, 4, 3), 0x80FF, ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(content)
    assert decode(tmp_path / "deep.png", 4).unique().tolist() == [0x80]


MODES = {
    ".png": "1 L LA P RGB RGBA",
    ".jpg": "1 L RGB CMYK YCbCr",
    ".webp": "1 L LA P RGB RGBA CMYK YCbCr",
    ".bmp": "1 L P RGB RGBA",
    ".tif": "1 L LA P RGB RGBA CMYK YCbCr",
    ".gif": "1 L LA P RGB RGBA",
}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, of in MODES.items() for mode in of.split()])
def test_decode_reads_every_mode_of_every_format(suffix: str, mode: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(tmp_path / f"p{suffix}")
    assert decode(tmp_path / f"p{suffix}", None).shape == (3, 6, 8)
    assert decode(tmp_path / f"p{suffix}", None).min() >= 250
    assert decode((tmp_path / f"p{suffix}").read_bytes(), 4, channels=1).shape == (1, 4, 4)


def test_dimensions_of_turned_image_are_those_of_the_decoded_one(tmp_path: Path) -> None:
    for orientation in range(9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix in (".jpg", ".png", ".webp", ".tif"):
            path = tmp_path / f"p{suffix}"
            Image.new("RGB", (8, 6)).save(path, exif=exif)
            assert dimensions(path) == decode(path, None).shape[1:]
    with pytest.raises(InputError, match=r"none\.png is not a readable image"):
        dimensions(tmp_path / "none.png")
