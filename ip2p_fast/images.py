"""Pictures in and out: read what cameras and painters save as 8-bit RGB, size it as the paper does, write whole files.

numpy and Pillow only. Everything that can be wrong with a picture raises `BadInput` here, before any model is loaded.
"""

import io
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from .errors import BadInput

ImageSource: TypeAlias = str | Path | bytes | np.ndarray | Image.Image

MAX_PIXELS = 64_000_000
"""Default limit on width x height of an input: an 8000 x 8000 picture, 192 MB once decoded."""

MAX_STRETCH = 8
"""How many times the resolution the longer side of a resized picture may be."""

# Only the formats we mean to read: Pillow also registers ones that start other programs (EPS) or that few have tested.
_READS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

_WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"quality": 95}),
}


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as 8-bit RGB: turned as its EXIF says, transparency on white, an animation's first frame.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of
            uint8, uint16, bool, or floats in 0..1.
        max_pixels: limit on width x height, checked on the file's header before anything is decoded.

    Raises:
        BadInput: no such file, empty, truncated, not a picture, or over the limit; the message names the file.
    """
    if max_pixels < 1:
        raise BadInput(f"max_pixels is {max_pixels}: it must be at least 1")
    if isinstance(source, np.ndarray):
        image = _from_array(source)
        _require_pixels(image, max_pixels, "the array")
        return _to_rgb(image)
    if isinstance(source, Image.Image):
        _require_pixels(source, max_pixels, "the picture")
        with _decoding("the picture"):
            return _to_rgb(ImageOps.exif_transpose(source))
    name = "the picture" if isinstance(source, bytes) else str(source)
    with _opened(source) as file, _decoding(name), Image.open(file, formats=_readable_formats()) as image:
        _require_pixels(image, max_pixels, name)
        image.load()
        _require_pixels(image, max_pixels, name)  # a few formats learn their size only by decoding
        return _to_rgb(ImageOps.exif_transpose(image))


def load_mask(source: ImageSource, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a mask, fitted like the picture it goes with. White is edited, black is kept, grey is blended.

    Returns:
        float32 [H, W] in 0..1 for `size` = (W, H).
    """
    # Bilinear: Lanczos rings at a mask's hard edges.
    mask = ImageOps.fit(load_image(source, max_pixels).convert("L"), size, method=Image.Resampling.BILINEAR)
    return np.asarray(mask, dtype=np.float32) / 255.0


def target_size(width: int, height: int, resolution: int, multiple: int = 64) -> tuple[int, int]:
    """The size (width, height) at which a picture is edited: about `resolution` on its longer side, the aspect kept.

    The paper's rule (Brooks et al. 2023, its edit_cli.py), with m for `multiple`:
    f = resolution / max(w, h); f = ceil(min(w, h) f / m) m / min(w, h); each side = floor(side f / m) m.
    It is worked out in integers. In doubles, as the original does it, a product that should be a whole number of
    multiples can come out a hair below one, and a 1280x853 picture at resolution 64 gets a height of 0.

    Raises:
        BadInput: a size below 1, or a picture so long that its longer side would pass MAX_STRETCH x resolution.
    """
    for what, value in (("width", width), ("height", height), ("multiple", multiple)):
        if value < 1:
            raise BadInput(f"the picture's {what} is {value}: it must be at least 1")
    if resolution < multiple:
        raise BadInput(f"size {resolution} is too small: this model needs at least {multiple}")
    short, long = min(width, height), max(width, height)
    blocks = -(-short * resolution // (long * multiple))  # ceil
    new_short, new_long = blocks * multiple, long * blocks // short * multiple
    if new_long > MAX_STRETCH * resolution:
        raise BadInput(
            f"a {width}x{height} picture is too long: its longer side would become {new_long} pixels, "
            f"over the limit of {MAX_STRETCH} times the size {resolution}; crop it first"
        )
    return (new_long, new_short) if width >= height else (new_short, new_long)


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale and centre-crop to fill `size` = (width, height) exactly, Lanczos."""
    return ImageOps.fit(image, size, method=Image.Resampling.LANCZOS)


def before_after(before: Image.Image, after: Image.Image) -> Image.Image:
    """The two side by side at the size of `after`, with a thin white gap."""
    width, height = after.size
    gap = max(2, width // 64)
    sheet = Image.new("RGB", (2 * width + gap, height), "white")
    sheet.paste(fit(before, after.size), (0, 0))
    sheet.paste(after, (width + gap, 0))
    return sheet


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write a PNG, JPEG or WebP (by the path's ending) as a whole file or not at all.

    The bytes go to a temporary file in the same folder, which then takes the name in one step: an interruption leaves
    either the old file or the new one.

    Raises:
        BadInput: the ending is of no format we write, or the folder is missing or cannot be written.
    """
    path = Path(path)
    file_format, options = _format_of(path)
    with _temporary_beside(path) as temporary:
        with temporary.open("xb") as file:
            image.save(file, file_format, **options)
        os.replace(temporary, path)


def require_writable(path: str | Path) -> None:
    """Check that `save_image` to `path` will work, by writing and removing an empty file, so that work can fail early.

    Raises:
        BadInput: as `save_image`.
    """
    path = Path(path)
    _format_of(path)
    with _temporary_beside(path) as temporary:
        temporary.touch(exist_ok=False)


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[BinaryIO]:
    """A file or bytes in memory as a stream to decode from, known not to be empty."""
    if isinstance(source, bytes):
        if not source:
            raise BadInput("the picture is empty (0 bytes)")
        yield io.BytesIO(source)
        return
    path = Path(source)
    if path.is_dir():
        raise BadInput(f"{path} is a folder, not a picture")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise BadInput(f"{str(path)!r} is not a file name") from None  # a null byte in it
    with file:
        if not os.fstat(file.fileno()).st_size:
            raise BadInput(f"{path} is empty (0 bytes)")
        yield file


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever a decoder throws into one line. Pillow's plugins raise almost any type on damaged data."""
    try:
        with warnings.catch_warnings():
            # Our own limit speaks for large pictures; oddities in a file's metadata do not concern the caller.
            warnings.simplefilter("ignore")
            yield
    except BadInput:
        raise
    except Image.UnidentifiedImageError:
        raise BadInput(f"{name} is not a picture in a format we read ({', '.join(_readable_formats())})") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise BadInput(f"{name} is over {limit:,} pixels, the most that Pillow opens; make it smaller") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{name} is damaged: {reason}") from error


def _readable_formats() -> list[str]:
    Image.init()  # plugins register themselves; which exist depends on how Pillow was built
    return [name for name in _READS if name in Image.OPEN]


def _require_pixels(image: Image.Image, max_pixels: int, name: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise BadInput(f"{name} has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise BadInput(
            f"{name} has {width}x{height} = {width * height:,} pixels, over the limit of {max_pixels:,} "
            "(make it smaller, or raise the limit: max_pixels, --max-pixels)"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey (I;16 and its byte orders, I), or floats
        image = _from_array(_high_depth_grey(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _high_depth_grey(image: Image.Image) -> np.ndarray:
    """Pillow's own convert("L") clips these modes at 255 instead of scaling them."""
    grey = np.asarray(image)
    return grey if image.mode == "F" else np.clip(grey, 0, 65535).astype(np.uint16)


def _from_array(array: np.ndarray) -> Image.Image:
    """[H, W], [H, W, 1], [H, W, 3] or [H, W, 4] -> L, RGB or RGBA."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise BadInput(f"an array of shape {list(array.shape)} is not a picture: give [H, W], [H, W, 3] or [H, W, 4]")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # rounds; 65535 -> 255
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails too
            raise BadInput(f"a picture of floats must lie in 0..1; this one spans {low:g}..{high:g}")
        array = np.rint(array * 255.0).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise BadInput(f"an array of {array.dtype} is not a picture: give uint8, uint16, bool, or floats in 0..1")
    return Image.fromarray(np.ascontiguousarray(array))


def _format_of(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        return _WRITES[path.suffix.lower()]
    except KeyError:
        ending = f"ends in {path.suffix}" if path.suffix else "has no ending"
        raise BadInput(f"cannot save a picture as {path}: it {ending}; use one of {', '.join(_WRITES)}") from None


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """A free name in the folder of `path`; whatever is left under it is removed, come what may."""
    if path.is_dir():
        raise BadInput(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise BadInput(f"cannot write {path}: there is no folder {path.parent}; make it first")
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        yield temporary
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # where the folder cannot be written there is no file, and that is already raised
            temporary.unlink(missing_ok=True)
