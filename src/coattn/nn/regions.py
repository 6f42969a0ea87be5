"""Region encoders: precomputed features of image regions, optionally with their boxes, to region tokens.

Letters: B batch, R regions, D_in feature width, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Dropout, make_norm


def box_geometry(boxes: Tensor) -> Tensor:
    """Boxes (B, R, 4) as x1 y1 x2 y2 in [0, 1] -> (B, R, 5): the same and the area."""
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1, keepdim=True)
    return torch.cat((boxes, area), -1)


def pixel_boxes(boxes: Tensor, image_sizes: Tensor | None) -> Tensor:
    """Boxes (B, R, 4) in [0, 1] -> in pixels of images of `image_sizes` (B, 2), width and height.

    Raises:
        ValueError: the sizes are not given.
    """
    if image_sizes is None:
        raise ValueError(
            "this model measures boxes in pixels: pass image_sizes (B, 2), ones if the boxes are in pixels"
        )
    return boxes * image_sizes.to(boxes.dtype).repeat(1, 2)[:, None]


ACTIVATIONS: dict[str, type[nn.Module]] = {"none": nn.Identity, "tanh": nn.Tanh}


class StandardizedFeatures(nn.Module):
    """Base of the region encoders that can z-score their features.

    Args:
        region_dim: width D_in of the region features.
        standardized: subtract a mean from each feature dimension and divide by a standard deviation; they are kept as
            buffers, so that they travel with the weights, and are set by `standardize`.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, region_dim: int, *, standardized: bool) -> None:
        super().__init__()
        self.region_dim, self.standardized = region_dim, standardized
        if standardized:
            self.register_buffer("feature_mean", torch.zeros(region_dim))
            self.register_buffer("feature_std", torch.ones(region_dim))

    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics of the training images' features, `mean` and `std` (D_in,).

        A dimension with std 0 is only centered, not divided.

        Raises:
            ValueError: the encoder was built without `standardized`, or a shape differs.
        """
        if not self.standardized:
            raise ValueError("this region encoder was built with standardized=False")
        if mean.shape != (self.region_dim,) or std.shape != (self.region_dim,):
            raise ValueError(f"expected statistics ({self.region_dim},), got {tuple(mean.shape)}, {tuple(std.shape)}")
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(torch.where(std > 0, std, 1.0))

    def check_and_scale(self, regions: Tensor) -> Tensor:
        """Check features (B, R, D_in) and standardize them if the encoder does so.

        Raises:
            ValueError: wrong feature width.
        """
        if regions.shape[-1] != self.region_dim:
            raise ValueError(f"expected region features of width {self.region_dim}, got {tuple(regions.shape)}")
        return (regions - self.feature_mean) / self.feature_std if self.standardized else regions


class RegionEncoder(StandardizedFeatures):
    """`norm(act(linear(feature) + linear(box geometry) + position))`, each part but the linear map optional.

    Args:
        region_dim: width D_in of the region features.
        dim: width D of the region tokens.
        boxes: add a linear map of the box geometry (x1, y1, x2, y2, area).
        num_positions: number of learned positions, by place in the sequence, for grids of fixed size; 0 for none.
        standardized: subtract a mean from each feature dimension and divide by a standard deviation first; they are
            kept as buffers, so that they travel with the weights, and are set by `standardize`.
        feature_dropout: dropout on the features, before the linear map. With few training images this, not `dropout`,
            keeps a model from memorizing each image.
        activation: "tanh" or "none", before the norm.
        norm: name of the norm, see `make_norm`.
        dropout: dropout on the tokens.

    Raises:
        ValueError: unknown activation or norm.
    """

    def __init__(
        self,
        region_dim: int,
        *,
        dim: int,
        boxes: bool = False,
        num_positions: int = 0,
        standardized: bool = False,
        feature_dropout: float = 0.0,
        activation: str = "none",
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(region_dim, standardized=standardized)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.dim, self.boxes, self.num_positions = dim, boxes, num_positions
        self.feature_dropout, self.activation, self.norm, self.dropout = feature_dropout, activation, norm, dropout
        self.drop_features = Dropout(feature_dropout)
        self.features = nn.Linear(region_dim, dim)
        self.geometry = nn.Linear(5, dim) if boxes else None
        self.positions = (
            nn.Parameter(nn.init.normal_(torch.empty(num_positions, dim), std=0.02)) if num_positions else None
        )
        self.activate = ACTIVATIONS[activation]()
        self.normalize = make_norm(norm, dim)
        self.drop = Dropout(dropout)

    def forward(
        self, regions: Tensor, mask: Tensor, boxes: Tensor | None = None, image_sizes: Tensor | None = None
    ) -> Tensor:
        """Encode features `regions` (B, R, D_in) with `mask` (B, R) and `boxes` (B, R, 4) in [0, 1] -> (B, R, D).

        Padding stays zeros. `image_sizes` is part of the common signature and not used here.

        Raises:
            ValueError: wrong feature width, boxes missing though needed, or more regions than positions.
        """
        regions = self.check_and_scale(regions.to(self.features.weight.dtype))
        tokens = self.features(self.drop_features(regions))  # (B, R, D)
        if self.geometry is not None:
            if boxes is None:
                raise ValueError("this model uses box geometry: pass boxes (B, R, 4) in [0, 1]")
            tokens = tokens + self.geometry(box_geometry(boxes.to(tokens.dtype)))
        if self.positions is not None:
            if tokens.shape[1] > self.num_positions:
                raise ValueError(f"{tokens.shape[1]} regions, but num_positions={self.num_positions}")
            tokens = tokens + self.positions[: tokens.shape[1]]
        return self.drop(self.normalize(self.activate(tokens))) * mask[:, :, None]


class PlainRegionEncoder(StandardizedFeatures):
    """Returns the features unchanged, for models that attend to them directly. It has no parameters.

    Args:
        region_dim: width D_in of the region features, and of the region tokens.
        standardized: z-score them first, see `StandardizedFeatures`.
        dropout: dropout on the features.
    """

    def __init__(self, region_dim: int, *, standardized: bool = False, dropout: float = 0.0) -> None:
        super().__init__(region_dim, standardized=standardized)
        self.dropout = dropout
        self.drop = Dropout(dropout)

    def forward(
        self, regions: Tensor, mask: Tensor, boxes: Tensor | None = None, image_sizes: Tensor | None = None
    ) -> Tensor:
        """Features (B, R, D_in) with `mask` (B, R) -> the same, zeros at padding.

        Raises:
            ValueError: wrong feature width.
        """
        return self.drop(self.check_and_scale(regions)) * mask[:, :, None]
