"""B1 and B2: values, colours, orientation and axes of one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.examine.making import CT, SECONDARY, canonical, dicom, enhanced, geometry, item, nifti, png, read, transcoded
from tools.examine.tries import Seen, case, same, true

GENERATOR = np.random.default_rng(20)
LUMA = np.array([0.299, 0.587, 0.114])
OBLIQUE = (0.98480775, 0.17364818, 0.0, -0.17101007, 0.96984631, -0.17364818)


def deep(shape: tuple[int, ...], high: int = 65536) -> np.ndarray:
    return GENERATOR.integers(0, high, shape).astype(np.uint16)


@case("B1")
def deep_grey_as_colours(folder: Path) -> Seen:
    """16-bit grey PNG, channels 3: thirds alike, from 0 to 1, nothing clipped"""
    values = deep((5, 7))
    png(folder / "a.png", values, 0, 16)
    seen, told = read(folder, "a.png", channels=3)
    return same(seen[0], np.stack([values / 65535] * 3), told=told)


@case("B1", told="upper 8")
def deep_colours(folder: Path) -> Seen:
    """16-bit RGB PNG: within 1/255, and told that the upper eight bits are read"""
    values = deep((5, 7, 3))
    png(folder / "a.png", values, 2, 16)
    seen, told = read(folder, "a.png")
    return same(seen[0], (values / 65535).transpose(2, 0, 1), within=1 / 254, told=told)


@case("B1")
def exif_in_png_and_tiff(folder: Path) -> Seen:
    """EXIF orientations 5 and 7 in PNG and WEBP, grey asked for: upright, luma of the turned colours"""
    from PIL import Image

    colours = GENERATOR.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    seen = []
    for orientation, ending, options in ((5, "png", {}), (7, "webp", {"lossless": True})):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(colours).save(folder / f"{orientation}.{ending}", exif=exif.tobytes(), **options)
        seen.append(read(folder, f"{orientation}.{ending}", channels=1)[0][0, 0])
    transposed = colours.transpose(1, 0, 2)
    wanted = [transposed @ LUMA / 255, transposed[::-1, ::-1] @ LUMA / 255]
    return same(np.stack(seen), np.stack(wanted), within=1 / 255)


@case("B1", told="transparent")
def palette_with_transparency(folder: Path) -> Seen:
    """palette PNG with a transparent entry: the palette's colours, never indices, and told of the transparency"""
    from PIL import Image

    indices = GENERATOR.integers(0, 4, (6, 5)).astype(np.uint8)
    palette = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30], [255, 255, 255]], np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(palette.ravel().tolist())
    image.save(folder / "a.png", transparency=2)
    seen, told = read(folder, "a.png", channels=3)
    return same(seen[0], palette[indices].transpose(2, 0, 1) / 255, told=told)


@case("B1")
def one_bit_png_and_tiff(folder: Path) -> Seen:
    """1-bit PNG and 1-bit TIFF whose white is 0: 0 and 1, white is 1 in both"""
    from PIL import Image

    mask = GENERATOR.integers(0, 2, (6, 11)).astype(bool)
    png(folder / "a.png", mask, 0, 1)
    Image.fromarray(mask).save(folder / "b.tif", tiffinfo={262: 0})
    stored = np.asarray(Image.open(folder / "b.tif"))
    seen, told = read(folder, ["a.png", "b.tif"])
    return same(seen[:, 0], np.stack([mask, stored]).astype(float), told=told)


@case("B1")
def cmyk_jpeg(folder: Path) -> Seen:
    """CMYK JPEG: Pillow's RGB of it"""
    from PIL import Image

    inks = np.kron(GENERATOR.integers(0, 256, (2, 3, 4)), np.ones((8, 8, 1))).astype(np.uint8)
    Image.fromarray(inks, mode="CMYK").save(folder / "a.jpg", quality=95)
    wanted = np.asarray(Image.open(folder / "a.jpg").convert("RGB"))
    seen, told = read(folder, "a.jpg")
    return same(seen[0], wanted.transpose(2, 0, 1) / 255, told=told)


@case("B1")
def monochrome1_signed(folder: Path) -> Seen:
    """MONOCHROME1, signed 12 bits, slope 2 and intercept -100: turned about the range of the bits, then in units"""
    stored = GENERATOR.integers(-2048, 2048, (5, 6)).astype(np.int16)
    dicom(
        folder / "a.dcm", stored, bits=12, PhotometricInterpretation="MONOCHROME1", RescaleSlope="2",
        RescaleIntercept="-100", WindowCenter="0", WindowWidth="50",
    )  # fmt: skip
    seen, told = read(folder, "a.dcm")
    return same(seen[0, 0], (-1.0 - stored) * 2 - 100, told=told)


@case("B1")
def palette_dicom_of_16_bits(folder: Path) -> Seen:
    """palette-colour DICOM, tables of 16 bits from index 3 on: colours of 0 to 255, indices below are the first"""
    indices = GENERATOR.integers(0, 8, (5, 6)).astype(np.uint8)
    tables = [GENERATOR.integers(0, 65536, 5).astype(np.uint16) for _ in range(3)]
    lut = {}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        lut[f"{name}PaletteColorLookupTableDescriptor"] = [5, 3, 16]
        lut[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    dicom(folder / "a.dcm", indices, PhotometricInterpretation="PALETTE COLOR", **lut)
    places = np.clip(indices.astype(int) - 3, 0, 4)
    seen, told = read(folder, "a.dcm")
    return same(seen[0], np.stack([table[places] / 257 for table in tables]), within=2e-3, told=told)


@case("B1")
def modality_lut_signed(folder: Path) -> Seen:
    """modality look-up table from -4 on, MONOCHROME1: the table's entries, ends held, turned about the table's range"""
    stored = GENERATOR.integers(-8, 9, (5, 6)).astype(np.int16)
    table = GENERATOR.integers(0, 4000, 9).astype(np.uint16)
    lut = item(LUTDescriptor=[9, -4, 16], ModalityLUTType="HU", LUTData=table.tobytes())
    lut["LUTDescriptor"].VR = "SS"
    lut["LUTData"].VR = "OW"
    dicom(folder / "a.dcm", stored, ModalityLUTSequence=[lut], PhotometricInterpretation="MONOCHROME1")
    wanted = float(table.min()) + float(table.max()) - table[np.clip(stored + 4, 0, 8)].astype(float)
    seen, told = read(folder, "a.dcm")
    return same(seen[0, 0], wanted, told=told)


@case("B1")
def enhanced_slopes_reversed_oblique(folder: Path) -> Seen:
    """enhanced CT, oblique, frames stored backwards, a slope and intercept for each: the tensor of the same NIfTI"""
    volume = GENERATOR.integers(0, 4000, (5, 6, 7)).astype(np.uint16)
    slopes = [(1 + 0.25 * frame, -1000.0 + 10 * frame) for frame in range(5)]
    enhanced(
        folder / "a.dcm", volume, orientation=OBLIQUE, spacing=(0.7, 0.9), step=2.5, order=[4, 2, 0, 1, 3],
        slopes=slopes,
    )  # fmt: skip
    units = np.stack([frame * slope + intercept for frame, (slope, intercept) in zip(volume, slopes, strict=True)])
    affine = geometry(OBLIQUE, (0.7, 0.9), 2.5, (0, 0, 0))
    nifti(folder / "b.nii.gz", units.transpose(2, 1, 0).astype(np.float32), affine)
    one, told = read(folder, "a.dcm", dimensions=3)
    other, _ = read(folder, "b.nii.gz", dimensions=3)
    wanted = canonical(units.transpose(2, 1, 0), affine)
    return same(np.stack([one[0], other[0]]), np.stack([wanted, wanted]), told=told)


@case("B1")
def four_transfer_syntaxes(folder: Path) -> Seen:
    """signed 16 bits as RLE, JPEG-LS, lossless JPEG, JPEG 2000, big-endian and deflated: one tensor"""
    stored = GENERATOR.integers(-1000, 3000, (16, 16)).astype(np.int16)
    names = []
    for number, syntax in enumerate(("5", "4.80", "4.70", "4.90")):
        names.append(f"{number}.dcm")
        transcoded(
            dicom(folder / names[-1], stored, RescaleIntercept="-24", RescaleSlope="1"), f"1.2.840.10008.1.2.{syntax}"
        )
    for syntax in ("2", "1.99"):
        names.append(f"{syntax}.dcm")
        dicom(
            folder / names[-1], stored, syntax=f"1.2.840.10008.1.2.{syntax}", RescaleIntercept="-24", RescaleSlope="1"
        )
    seen, told = read(folder, names)
    return same(seen[:, 0], np.stack([stored - 24.0] * 6), told=told)


@case("B1")
def overlay_bits(folder: Path) -> Seen:
    """12 bits stored in 16 with an overlay in the upper four, window given: the twelve bits, no window"""
    stored = GENERATOR.integers(0, 4096, (6, 6)).astype(np.uint16)
    with_overlay = stored | (GENERATOR.integers(0, 2, (6, 6)).astype(np.uint16) << 13)
    dicom(folder / "a.dcm", with_overlay, bits=12, WindowCenter="100", WindowWidth="10")
    seen, told = read(folder, "a.dcm")
    return same(seen[0, 0], stored, told=told)


@case("B1")
def grey_of_ybr_and_planar(folder: Path) -> Seen:
    """RGB DICOM by planes, and YBR_FULL of grey pixels, channels 1: the same luma as PNG"""
    from PIL import Image

    colours = GENERATOR.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(colours).save(folder / "a.png")
    dicom(folder / "b.dcm", colours, PlanarConfiguration=1, PixelData=colours.transpose(2, 0, 1).tobytes())
    level = GENERATOR.integers(0, 256, (6, 8)).astype(np.uint8)
    ybr = np.stack([level, np.full_like(level, 128), np.full_like(level, 128)], axis=-1)
    dicom(folder / "c.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    a, told = read(folder, "a.png", channels=1)
    b, _ = read(folder, "b.dcm", channels=1)
    c, _ = read(folder, "c.dcm", channels=1)
    luma = colours @ LUMA
    return same(
        np.stack([a[0, 0] * 255, b[0, 0], c[0, 0]]), np.stack([luma, luma, level]), within=1.01 / 255, told=told
    )


@case("B2")
def fourth_axis_of_one(folder: Path) -> Seen:
    """4-D NIfTI with one volume: a volume of one channel"""
    values = GENERATOR.normal(size=(4, 5, 6, 1)).astype(np.float32)
    nifti(folder / "a.nii", values, np.diag([-2.0, 2, 2, 1]))
    seen, told = read(folder, "a.nii", dimensions=3)
    return same(seen[0], values[::-1, :, :, 0][None], told=told)


@case("B2", refused="over time|several volumes")
def fourth_axis_of_three(folder: Path) -> Seen:
    """4-D NIfTI with three volumes, channels 3: no colours, refused"""
    nifti(folder / "a.nii.gz", GENERATOR.normal(size=(4, 5, 6, 3)).astype(np.float32), np.eye(4))
    return Seen(None, read(folder, "a.nii.gz", dimensions=3, channels=3)[1])


@case("B2")
def fifth_axis_of_vectors(folder: Path) -> Seen:
    """5-D NIfTI-2 of vectors (x, y, z, 1, 3), flipped: three channels"""
    values = GENERATOR.normal(size=(4, 5, 6, 1, 3)).astype(np.float64)
    nifti(folder / "a.nii", values, np.diag([1.0, -1, 2, 1]), version=2)
    seen, told = read(folder, "a.nii", dimensions=3)
    return same(seen[0], values[:, ::-1, :, 0].transpose(3, 0, 1, 2), told=told)


@case("B2", refused="channel")
def array_of_two_readings(folder: Path) -> Seen:
    """npy of (3, 9, 3): which axis is the channels' cannot be known, refused with the option"""
    np.save(folder / "a.npy", GENERATOR.normal(size=(3, 9, 3)))
    return Seen(None, read(folder, "a.npy")[1])


@case("B2", refused="volume|channel_axis")
def array_volume_as_image(folder: Path) -> Seen:
    """npy of (16, 17, 18) in a problem of images: refused, not 16 channels"""
    np.save(folder / "a.npy", GENERATOR.normal(size=(16, 17, 18)))
    return Seen(None, read(folder, "a.npy")[1])


@case("B2", refused="several volumes or images")
def pages_as_image(folder: Path) -> Seen:
    """TIFF of three pages in a problem of images: refused, not colours"""
    from PIL import Image

    pages = [Image.fromarray(GENERATOR.integers(0, 256, (6, 7)).astype(np.uint8)) for _ in range(3)]
    pages[0].save(folder / "a.tif", save_all=True, append_images=pages[1:])
    return Seen(None, read(folder, "a.tif", channels=3)[1])


@case("B2", refused="several volumes or images")
def moving_png(folder: Path) -> Seen:
    """animated PNG: refused, not its first frame without a word"""
    from PIL import Image

    pages = [Image.fromarray(GENERATOR.integers(0, 256, (6, 7)).astype(np.uint8)) for _ in range(3)]
    pages[0].save(folder / "a.png", save_all=True, append_images=pages[1:])
    return Seen(None, read(folder, "a.png")[1])


@case("B2")
def channels_of_metaimage(folder: Path) -> Seen:
    """MetaImage of three element channels, flipped along y: three channels, front is up"""
    values = GENERATOR.integers(0, 200, (4, 5, 6, 3)).astype(np.uint8)  # z, y, x, channels
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "TransformMatrix = -1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 2\nDimSize = 6 5 4\n"
        "ElementNumberOfChannels = 3\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    (folder / "a.mha").write_bytes(head.encode() + values.tobytes())
    # LPS: x goes to the left, turned by -1 to the right; y goes back, so that front is reversed.
    wanted = values.transpose(3, 2, 1, 0)[:, :, ::-1, :]
    seen, told = read(folder, "a.mha", dimensions=3)
    return same(seen[0], wanted, told=told)


@case("B2")
def nrrd_vectors_first(folder: Path) -> Seen:
    """NRRD whose first axis is of RGB colours, and left-posterior-superior directions: channels 3"""
    import nrrd

    values = GENERATOR.integers(0, 255, (3, 5, 6, 4)).astype(np.uint8)
    header = {
        "space": "left-posterior-superior", "kinds": ["RGB-color", "domain", "domain", "domain"],
        "space directions": np.array([[np.nan] * 3, [1, 0, 0], [0, 2, 0], [0, 0, -3]]), "space origin": np.zeros(3),
    }  # fmt: skip
    nrrd.write(str(folder / "a.nrrd"), values, header)
    seen, told = read(folder, "a.nrrd", dimensions=3)
    return same(seen[0], values[:, ::-1, ::-1, ::-1], told=told)


@case("B2", refused="volume")
def multiframe_as_image(folder: Path) -> Seen:
    """enhanced CT in a problem of images: refused as a volume"""
    enhanced(folder / "a.dcm", deep((3, 5, 6), 100), shared=(1.0, 0.0))
    return Seen(None, read(folder, "a.dcm", channels=3)[1])


@case("B2", refused="time|several")
def two_echoes_in_one_file(folder: Path) -> Seen:
    """enhanced MR of two echoes at the same places: refused, not a volume twice as long"""
    volume = deep((6, 5, 4), 1000)
    places = np.repeat(np.arange(3), 2)[:, None] * np.array([0, 0, 3.0])
    enhanced(folder / "a.dcm", volume, positions=places)
    return Seen(None, read(folder, "a.dcm", dimensions=3)[1])


@case("B2", refused="place in space|evenly")
def a_gap_between_frames(folder: Path) -> Seen:
    """enhanced CT with one frame missing from the middle: refused as unevenly spaced"""
    places = np.array([0, 1, 2, 4, 5])[:, None] * np.array([0, 0, 2.0])
    enhanced(folder / "a.dcm", deep((5, 4, 4), 1000), positions=places)
    return Seen(None, read(folder, "a.dcm", dimensions=3)[1])


@case("B1")
def float_parametric_map(folder: Path) -> Seen:
    """DICOM of float pixels with a sign: as stored"""
    values = GENERATOR.normal(size=(5, 6)).astype(np.float32)
    dicom(folder / "a.dcm", values, SOPClassUID=SECONDARY)
    seen, told = read(folder, "a.dcm")
    return same(seen[0, 0], values, told=told)


@case("B1")
def shared_slope_in_enhanced(folder: Path) -> Seen:
    """enhanced CT whose slope and intercept all frames share, beside misleading ones in the file itself"""
    volume = deep((4, 5, 6), 3000)
    enhanced(folder / "a.dcm", volume, shared=(0.5, -1024.0), step=-1.5)
    affine = geometry((1, 0, 0, 0, 1, 0), (1, 1), -1.5, (0, 0, 0))
    seen, told = read(folder, "a.dcm", dimensions=3)
    return same(seen[0], canonical(volume.transpose(2, 1, 0) * 0.5 - 1024, affine), told=told)


@case("B2", refused="volume|several")
def ct_slice_as_volume(folder: Path) -> Seen:
    """one slice of a CT series in a problem of volumes: refused, and the series is named"""
    dicom(folder / "a.dcm", deep((5, 6)), SOPClassUID=CT)
    return true(False, told=read(folder, "a.dcm", dimensions=3)[1])
