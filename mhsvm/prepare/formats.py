"""Formats of image files: those that are read, and those that are only known by name.

A file is found by its ending and read by its content, so that a PNG called `.jpg` is read as the PNG that it is. An
ending in `UNREAD` marks a file as an image that cannot be read, which is reported and never left out in silence.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Format:
    """A format that is read.

    Attributes:
        name: Name for messages.
        endings: Endings of its files, in lower case.
        pillow: Names of Pillow's readers; empty if another package reads it.
        package: The package that reads it, if that is an extra.
        extra: Name of the extra.
    """

    name: str
    endings: tuple[str, ...]
    pillow: tuple[str, ...] = ()
    package: str = ""
    extra: str = ""


# An explicit list, because Pillow would also try formats that start other programs, such as EPS.
FORMATS = (
    Format("BMP", (".bmp", ".dib"), ("BMP", "DIB")),
    Format("PNG", (".png", ".apng"), ("PNG",)),
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), ("JPEG",)),
    Format("TIFF", (".tif", ".tiff"), ("TIFF",)),
    Format("WebP", (".webp",), ("WEBP",)),
    Format("GIF", (".gif",), ("GIF",)),
    Format("AVIF", (".avif",), ("AVIF",)),
    Format("JPEG 2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"), ("JPEG2000",)),
    Format("PNM", (".ppm", ".pgm", ".pbm", ".pnm"), ("PPM",)),
    Format("HEIC", (".heic", ".heif", ".hif"), package="pillow_heif", extra="heic"),
    Format("DICOM", (".dcm", ".dicom"), package="pydicom", extra="dicom"),
)
NAMES = ", ".join(format.name for format in FORMATS)
# Endings of the files that are read.
EXTENSIONS = tuple(ending for format in FORMATS for ending in format.endings)

_UNREAD_BY_KIND = """
.svg .svgz .eps .wmf .emf
.psd .psb .xcf .kra .ora
.tga .pcx .ico .icns .cur .dds .exr .hdr .pfm .pam .jxl .jxr .wdp .hdp .jls .jng .mng .qoi .bpg .flif .xbm .xpm .sgi
.raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .x3f .3fr .erf .kdc .dcr .mrw .mos .iiq .rwl
.nii .nii.gz .mha .mhd .nrrd .nhdr .npy .npz .ima .analyze .fits
.svs .ndpi .scn .mrxs .vms .czi .lif .nd2 .vsi
"""
# Endings of images that are not read: vector graphics, files of editors, rare formats, raw files of cameras, volumes
# and arrays, slides of microscopes.
UNREAD = tuple(_UNREAD_BY_KIND.split())
# Archives other than zip files in a folder, which may hold images.
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".rar", ".7z", ".zip")


def is_read(name: str) -> bool:
    """Whether a file is an image of a format that is read, by the ending of its name."""
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def unread_kind(name: str) -> str | None:
    """Ending of an image or archive that is not read, such as ".svg"; None for every other file."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    endings = ("".join(suffixes[-2:]), *suffixes[-1:])
    return next((ending for ending in endings if ending in UNREAD or ending in ARCHIVES), None)


def needs_extra(format_name: str) -> str:
    """Message for a file whose format needs a package that is not installed."""
    (format,) = (format for format in FORMATS if format.name == format_name)
    package = format.package.replace("_", "-")
    return f"a {format.name} file, which needs the package {package}: pip install 'mhsvm[{format.extra}]'"
