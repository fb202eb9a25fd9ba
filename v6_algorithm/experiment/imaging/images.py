"""Section about images and volumes: where they are, and how they are brought to one size."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from v6_algorithm.experiment.base import Section, refuse
from v6_algorithm.experiment.imaging.names import Template

Length = Annotated[int, Field(ge=1, le=4096)]
Millimetres = Annotated[float, Field(gt=0)]


class Image(Section):
    """A column whose cells name image files, or names of files themselves, or columns that are the pixels of an image.

    Values of PNG, JPEG, TIFF, BMP and WEBP files are from 0 to 1; those of npy files, of volumes' and of DICOM files
    and of columns are as stored.
    """

    column: str | None = Field(
        None,
        description="names image files: PNG, JPEG, TIFF, BMP, WEBP, npy, NIfTI, MGH, MINC, NRRD, MetaImage or DICOM",
    )
    files: str | None = Field(
        None,
        description="how the images of a folder without a table are named, such as {label}/{patient}_*.png: each field "
        "becomes a column, and the name itself that of column; where no file is named so, folders of DICOM slices may "
        "be",
    )
    shape: list[Length] | None = Field(
        None, description="in place of column: [channels, height, width]; the features are the pixels in this order"
    )
    dimensions: Literal[2, 3] = Field(2, description="3, with problem volume_classification: volumes")
    size: list[Length] | None = Field(
        None, description="[height, width], or of volumes the three lengths; null: that of the files, if it is one"
    )
    fit: Literal["stretch", "cover", "crop"] = Field(
        "stretch",
        description="stretch: each side to its length; cover: keep proportions and cut off what is over; crop: keep "
        "the pixels, cut off what is over and fill up: with the low end of range, else the image's lowest value, of "
        "bytes 0",
    )
    spacing: list[Millimetres] | None = Field(
        None,
        description="of volumes but npy and TIFF (NIfTI, MGH, MINC, NRRD, MetaImage, DICOM): resampled to this many "
        "millimetres a voxel before they fit",
    )
    channels: Literal[1, 3] | None = Field(None, description="1: grey, 3: colour; null: as in the files")
    channel_axis: Literal["first", "last"] | None = Field(
        None, description="of npy arrays: where their channels are, where it is not plain from an axis of 1 or 3"
    )
    fill: float | None = Field(None, description="takes the place of NaN and infinite values, before range")
    range: tuple[float, float] | None = Field(None, description="becomes 0 to 1, and values beyond it 0 or 1")
    threshold: float | None = Field(None, description="values below, after range, become 0")
    mean: list[float] | None = Field(None, description="of each channel, with sd, in place of federated statistics")
    sd: list[Annotated[float, Field(gt=0)]] | None = None
    tolerance: float = Field(
        0.01, ge=0, lt=1, description="share of a site's images that may be missing or unreadable; they are left out"
    )

    @property
    def names(self) -> tuple[str, str] | None:
        """The template of files' names and the column that they become, where the experiment has one."""
        return None if self.files is None else (self.files, self.column or "file")

    @model_validator(mode="after")
    def _together(self) -> Image:
        if self.files is not None:
            self.column = self.column or "file"
            try:
                fields = Template.parse(self.files).fields
            except ValueError as error:
                raise refuse(f"files {error}") from None
            if self.column in fields:
                raise refuse(f"files: a field is called '{self.column}' as the column of the names is")
        if (self.column is None) == (self.shape is None):
            raise refuse("give column, which names files, or files, or shape, where the features are the pixels")
        if self.shape is not None:
            if self.size or self.spacing or self.channels:
                raise refuse("size, spacing and channels are of files; with shape the features are the pixels")
            if len(self.shape) != self.dimensions + 1:
                raise refuse(f"shape must be channels and then {self.dimensions} lengths, such as [1, 28, 28]")
        if self.size is not None and len(self.size) != self.dimensions:
            hint = "; volumes are of problem volume_classification" if self.dimensions == 2 else ""
            raise refuse(f"size must be {self.dimensions} lengths{hint}")
        if self.size is None and self.fit != "stretch":
            raise refuse(f"fit {self.fit} needs size")
        if self.spacing is not None and len(self.spacing) != 3:
            raise refuse("spacing must be three lengths in millimetres")
        if self.spacing is not None and self.dimensions == 2:
            raise refuse("spacing is of volumes, problem volume_classification")
        if (self.mean is None) != (self.sd is None) or len(self.mean or []) != len(self.sd or []):
            raise refuse("mean and sd go together, one number of each for each channel")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise refuse("range must be a lower and a higher value, such as [0, 255]")
        return self
