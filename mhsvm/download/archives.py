"""The one table of downloads: places, byte counts and checksums of the official archives, and their licenses.

Checksums are those that the publisher states (md5 of Dataverse and Zenodo), or that several independent loaders of the
archives state (ISIC; torch-em has the sha256 of 2018). None is known for no file; byte counts of ISIC 2016 and 2017 are
not known, so that of the server is taken, and the md5 decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mhsvm.registry import Registry


@dataclass(frozen=True)
class Archive:
    """A file of a set.

    Attributes:
        name: Its name, in the folder too.
        urls: Places, the official one first; empty if there is none that can be used without a login or a form.
        num_bytes: Its size; None if it is not known.
        sha256, md5: Its checksums in hexadecimal digits; "" if they are not known.
    """

    name: str
    urls: tuple[str, ...]
    num_bytes: int | None = None
    sha256: str = ""
    md5: str = ""

    @property
    def checksum(self) -> tuple[str, str]:
        """The stronger known checksum: algorithm and digits; ("", "") if there is none."""
        return ("sha256", self.sha256) if self.sha256 else ("md5", self.md5) if self.md5 else ("", "")


@dataclass(frozen=True)
class Download:
    """The files of a set.

    Attributes:
        title: Name and content of the set.
        license, terms: Name of its license, and the page that states it.
        parts: Files by part, such as "train".
        manual: A sentence on files that must be fetched by hand, such as images; "" if there are none.
    """

    title: str
    license: str
    terms: str
    parts: Mapping[str, tuple[Archive, ...]] = field(default_factory=dict)
    manual: str = ""


DOWNLOADS: Registry[Download] = Registry("download")


def list_downloads() -> tuple[str, ...]:
    """Names of all sets with a download."""
    return tuple(sorted(DOWNLOADS))


def _isic(year: int, name: str, num_bytes: int | None = None, *, sha256: str = "", md5: str = "") -> Archive:
    buckets = ("isic-challenge-data.s3.amazonaws.com", "isic-archive.s3.amazonaws.com/challenges")
    urls = tuple(f"https://{bucket}/{year}/{name}" for bucket in buckets)
    return Archive(name, urls, num_bytes, sha256, md5)


def _zenodo(record: int, name: str, num_bytes: int | None = None, *, sha256: str = "", md5: str = "") -> Archive:
    return Archive(name, (f"https://zenodo.org/records/{record}/files/{name}?download=1",), num_bytes, sha256, md5)


def _dataverse(file_id: str, name: str, num_bytes: int, *, sha256: str, md5: str) -> Archive:
    return Archive(name, (f"https://dataverse.harvard.edu/api/access/datafile/{file_id}",), num_bytes, sha256, md5)


DOWNLOADS.add(
    "isic2016",
    Download(
        "ISIC 2016 part 1: 900 / 379 images with masks",
        "CC0",
        "https://challenge.isic-archive.com/data/#2016",
        {
            "train": (
                _isic(2016, "ISBI2016_ISIC_Part1_Training_Data.zip", md5="2029f387e62dcc062b1370b1efc1f7fb"),
                _isic(2016, "ISBI2016_ISIC_Part1_Training_GroundTruth.zip", md5="fbd77134298f3511479a37bac93109c7"),
            ),
            "test": (
                _isic(2016, "ISBI2016_ISIC_Part1_Test_Data.zip", md5="efebcaeaae751007401a40a60d391f93"),
                _isic(2016, "ISBI2016_ISIC_Part1_Test_GroundTruth.zip", md5="492a7711a2e19b96114cab6c96bd1ad5"),
            ),
        },
    ),
)
DOWNLOADS.add(
    "isic2017",
    Download(
        "ISIC 2017 part 1: 2000 / 150 / 600 images with masks",
        "CC0",
        "https://challenge.isic-archive.com/data/#2017",
        {
            "train": (
                _isic(2017, "ISIC-2017_Training_Data.zip", md5="a14a7e622c67a358797ae59abb8a0b0c"),
                _isic(2017, "ISIC-2017_Training_Part1_GroundTruth.zip", md5="77fdbeb6fbec4139937224416b250f4c"),
            ),
            "val": (
                _isic(2017, "ISIC-2017_Validation_Data.zip", md5="8d6419d942112f709894c0d82f6c9038"),
                _isic(2017, "ISIC-2017_Validation_Part1_GroundTruth.zip", md5="64d3e68fa2deeb8a5e89aa8dec2efd44"),
            ),
            "test": (
                _isic(2017, "ISIC-2017_Test_v2_Data.zip", md5="5f6a0b5e1f2972bd1f5ea02680489f09"),
                _isic(2017, "ISIC-2017_Test_v2_Part1_GroundTruth.zip", md5="b1742de6bd257faca3b2b21a4aa3b781"),
            ),
        },
    ),
)
DOWNLOADS.add(
    "isic2018",
    Download(
        "ISIC 2018 task 1: 2594 / 100 / 1000 images with masks",
        "CC BY-NC 4.0",
        "https://challenge.isic-archive.com/data/#2018",
        {
            "train": (
                _isic(
                    2018,
                    "ISIC2018_Task1-2_Training_Input.zip",
                    11_165_358_566,
                    sha256="80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
                    md5="8b5be801f37b58ccf533df2928a5906b",
                ),
                _isic(
                    2018,
                    "ISIC2018_Task1_Training_GroundTruth.zip",
                    27_402_895,
                    sha256="99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
                    md5="ee5e5db7771d48fa2613abc7cb5c24e2",
                ),
            ),
            "val": (
                _isic(
                    2018,
                    "ISIC2018_Task1-2_Validation_Input.zip",
                    239_231_159,
                    sha256="0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
                    md5="d8f15a08981c8d6c0646b5e3228ef20d",
                ),
                _isic(
                    2018,
                    "ISIC2018_Task1_Validation_GroundTruth.zip",
                    759_706,
                    sha256="f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
                    md5="2323d7ed9350de0a463d529ef45a62f4",
                ),
            ),
            "test": (
                _isic(
                    2018,
                    "ISIC2018_Task1-2_Test_Input.zip",
                    2_370_457_338,
                    sha256="e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d",
                    md5="0a9ba80e1aee58716fbfcdde7131c45a",
                ),
                _isic(
                    2018,
                    "ISIC2018_Task1_Test_GroundTruth.zip",
                    9_680_101,
                    sha256="2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82",
                ),
            ),
        },
    ),
)
DOWNLOADS.add(
    "ham10000",
    Download(
        "HAM10000: 10,015 images of 7,470 lesions, with Tschandl's masks",
        "CC BY-NC 4.0",
        "https://doi.org/10.7910/DVN/DBW86T",
        {
            "images": (
                _dataverse(
                    "3172585",
                    "HAM10000_images_part_1.zip",
                    1_366_522_108,
                    sha256="6202a599129c2efe81c25aea8586d422eeda8a4fae5df49dd7b7bbf956d419db",
                    md5="4639bfa73ab251610530a97c898e6e46",
                ),
                _dataverse(
                    "3172584",
                    "HAM10000_images_part_2.zip",
                    1_403_566_547,
                    sha256="9677f30118c21ecc667a147de369d89acb25efab046fd32f6b13ad677ce2d6d0",
                    md5="da43d6cc50f6613013be07e8986b384b",
                ),
            ),
            "masks": (
                _dataverse(
                    "3838943",
                    "HAM10000_segmentations_lesion_tschandl.zip",
                    10_808_743,
                    sha256="6d88d7df8cc806c938932939d50c17fb9ad206c143343e4702c81cf3453c1e7a",
                    md5="6e8d252e09cfdb0189199f15985a5b84",
                ),
            ),
            "metadata": (
                _dataverse(
                    "4338392?format=original",
                    "HAM10000_metadata.csv",
                    690_218,
                    sha256="de17ec44cb25ea9c3f6378ba18d69224c740afd62e86ec2edc6a894d6aa663d3",
                    md5="8f85fb1aa29d80a2797247e434deb79d",
                ),
            ),
        },
    ),
)
DOWNLOADS.add(
    "imaplusplus",
    Download(
        "IMA++ v1.1: 17,684 masks by 16 raters for 14,967 images",
        "CC BY-NC-ND 4.0 for the masks; each image has its own license",
        "https://doi.org/10.5281/zenodo.14201692",
        {
            "masks": (
                _zenodo(
                    14201693,
                    "segs.zip",
                    sha256="4141feef60a168d5c699599e0a2089e6c689661ba6630459a138721cbf74ddc2",
                    md5="c5143aed98283ab57de2c86ce50973c8",
                ),
            ),
            "metadata": (
                _zenodo(14201693, "img_metadata.csv", 2_925_294, md5="c27fdbcaab1e2cae48d6ad7edd3d64c4"),
                _zenodo(14201693, "seg_metadata.csv", 3_150_634, md5="aae21dec31b48e45786da70c4609e45f"),
                _zenodo(14201693, "train.csv", md5="405995ddf4e912ed2bcf890f1c5c6eaf"),
                _zenodo(14201693, "val.csv", md5="73ca2e9fa602e4bc18024adfe37c8b42"),
                _zenodo(14201693, "test.csv", md5="92b3bf10a73a9bf1974acfad26bacfdc"),
            ),
        },
        manual="The images are collection 482 of the ISIC Archive: get them with its program, `isic image download "
        "-c 482 FOLDER` of isic-cli, or at https://api.isic-archive.com/collections/482/.",
    ),
)
DOWNLOADS.add(
    "ph2",
    Download(
        "PH2: 200 images with masks",
        "research and education only (Mendonça et al. 2013)",
        "https://doi.org/10.1109/EMBC.2013.6610779",
        {"all": (Archive("PH2.zip", (), 424_765_398, md5="a37f6a83c777ca861f055fdf49757991"),)},
        manual="PH2 has no official download any more: ask its authors, or use a copy that others have put on Kaggle "
        "or Zenodo (record 17498821, PH2.zip), if its terms allow you to.",
    ),
)
