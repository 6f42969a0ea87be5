"""Whether an image is unlike the training images: its distance to the nearest of them, in extractor space.

An image is the mean of its regions' features, whitened by the training images. Its distance is the mean of those to the
nearest centers (k-nearest-neighbor detection: Sun et al. 2022, arXiv 2204.06507), divided by the mean distance of these
centers to their own nearest ones (local outlier factor: Breunig et al. 2000, 10.1145/335191.335388, here without
reachability): where training images lie close together, a small step away is unusual. An image is flagged if its
distance is above the 99 % quantile of the validation images.

Letters: N images, R regions, D feature width, P whitened dimensions, K centers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from coattn._internal.files import atomic_path, require_regular
from coattn.serialization.files import IMAGE_INDEX

NEIGHBORS = 20  # nearest centers, or all others of fewer
FEWEST_IMAGES = 6  # of an index
QUANTILE = 0.99
MAX_DIMENSIONS = 64
MAX_CENTERS = 4096
DAMPING = 0.01  # of the mean variance, added before whitening


class ImageIndex(NamedTuple):
    """A small index of the training images.

    Attributes:
        mean: (D,) of the training images.
        projection: (D, P) to whitened principal components.
        residual: the mean length of what the components leave of a training image; 0 if they leave nothing.
        centers: (K, P + 1) training images: their components, and the length of the rest relative to `residual`.
        spread: (K,) the mean distance of each center to the centers nearest to it.
        threshold: the distance above which an image is flagged.
    """

    mean: np.ndarray
    projection: np.ndarray
    residual: np.ndarray
    centers: np.ndarray
    spread: np.ndarray
    threshold: np.ndarray

    @classmethod
    def build(cls, train: np.ndarray, val: np.ndarray) -> Self:
        """Index the mean features of the training images (N, D); those of the validation images set the threshold.

        Raises:
            ValueError: fewer than `FEWEST_IMAGES` training images, or no validation image.
        """
        if len(train) < FEWEST_IMAGES or not len(val):
            raise ValueError(f"an index of images needs {FEWEST_IMAGES} training images and 1 validation image")
        mean = train.mean(0)
        centered = train - mean
        variances, directions = np.linalg.eigh(centered.T @ centered / len(train))
        kept = np.argsort(-variances)[:MAX_DIMENSIONS]
        # Directions of almost no variance are damped: dividing by their tiny scale would only amplify noise.
        scale = np.sqrt(np.maximum(variances[kept], 0) + DAMPING * variances.mean() + 1e-12)
        # Everything is rounded as it is saved, so that a loaded index measures the same distances.
        mean, projection = _as_saved(mean), _as_saved(directions[:, kept] / scale)
        rest = np.linalg.norm(centered - (centered @ directions[:, kept]) @ directions[:, kept].T, axis=1).mean()
        residual = rest if rest > 1e-6 * np.linalg.norm(centered, axis=1).mean() else 0.0
        index = cls(mean, projection, _as_saved(np.array(residual)), np.empty((0, 0)), np.empty(0), np.array(0.0))
        chosen = np.random.default_rng(0).permutation(len(train))[:MAX_CENTERS]
        index = index._replace(centers=_as_saved(index._components(train[np.sort(chosen)])))
        own, _ = index._nearest(index.centers, index.num_neighbors + 1)  # each center is its own nearest one
        spread = own.sum(1) / index.num_neighbors
        # Equal training images are no distance apart: the smallest spread is above the rounding of the components.
        smallest = 0.01 * spread.mean() + 1e-6 * np.abs(index.centers).max() + 1e-12
        index = index._replace(spread=_as_saved(np.maximum(spread, smallest)))
        threshold = np.quantile(index.distances(val), QUANTILE, method="higher")
        return index._replace(threshold=_as_saved(np.array(np.nextafter(np.float32(threshold), np.float32(np.inf)))))

    @property
    def num_neighbors(self) -> int:
        """How many nearest centers count."""
        return min(NEIGHBORS, len(self.centers) - 1)

    def distances(self, images: np.ndarray) -> np.ndarray:
        """The distance (N,) of each image, given the means of their features (N, D); about 1 for a training image."""
        distances, nearest = self._nearest(self._components(images), self.num_neighbors)
        return distances.mean(1) / self.spread[nearest].mean(1)

    def are_unlike(self, images: np.ndarray) -> np.ndarray:
        """Which images (N,) are unlike the training images, given the means of their features (N, D)."""
        return self.distances(images) > self.threshold

    def _nearest(self, components: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The distances (N, count) to the nearest centers of images (N, P + 1), and the numbers of these centers."""
        distances, numbers = np.empty((len(components), count)), np.empty((len(components), count), np.int64)
        lengths = (self.centers**2).sum(1)
        for start in range(0, len(components), 256):
            part = components[start : start + 256]
            squares = np.maximum((part**2).sum(1)[:, None] + lengths - 2 * part @ self.centers.T, 0)
            nearest = np.argpartition(squares, count - 1, axis=1)[:, :count]
            numbers[start : start + 256] = nearest
            distances[start : start + 256] = np.sqrt(np.take_along_axis(squares, nearest, 1))
        return distances, numbers

    def _components(self, images: np.ndarray) -> np.ndarray:
        centered = images - self.mean
        components = centered @ self.projection
        if not self.residual:
            return np.concatenate((components, np.zeros((len(images), 1))), 1)
        # The columns of the projection are orthogonal, so their unit vectors span what the components hold.
        unit = self.projection / np.linalg.norm(self.projection, axis=0)
        rest = np.linalg.norm(centered - (centered @ unit) @ unit.T, axis=1)
        return np.concatenate((components, rest[:, None] / self.residual), 1)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `index.safetensors` into a model directory."""
        from safetensors.numpy import save

        arrays = {name: np.array(value, np.float32, order="C") for name, value in self._asdict().items()}
        with atomic_path(Path(folder) / IMAGE_INDEX) as partial:
            partial.write_bytes(save(arrays))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self | None:
        """The index of a model directory; None if it has none, or one of an earlier version without `spread`.

        Raises:
            ValueError: the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = Path(folder) / IMAGE_INDEX
        if not path.is_file():
            return None
        require_regular(path)
        try:
            arrays = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
        if set(arrays) == set(cls._fields) - {"spread"}:
            return None
        if set(arrays) != set(cls._fields):
            raise ValueError(f"{path}: holds {', '.join(sorted(arrays))}; an index holds {', '.join(cls._fields)}")
        index = cls(**{name: array.astype(np.float64) for name, array in arrays.items()})
        width, dimensions = index.projection.shape if index.projection.ndim == 2 else (-1, -1)
        count = len(index.centers) if index.centers.ndim else 0
        expected = {"mean": (width,), "residual": (), "threshold": (), "spread": (count,)}
        expected["centers"] = (count, dimensions + 1)
        if count < FEWEST_IMAGES or any(getattr(index, name).shape != shape for name, shape in expected.items()):
            raise ValueError(f"{path}: the shapes of its arrays do not fit together")
        if not all(np.isfinite(array).all() for array in index) or (index.spread <= 0).any():
            raise ValueError(f"{path}: its numbers cannot be distances; write it again with `coattn certify {folder}`")
        return index


def _as_saved(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).astype(np.float64)


def mean_features(images: Iterable[np.ndarray]) -> np.ndarray:
    """The mean of the regions' features of each image, (N, D); zeros for an image without regions."""
    means = [
        features.astype(np.float64).mean(0) if len(features) else np.zeros(features.shape[1]) for features in images
    ]
    return np.stack(means)
