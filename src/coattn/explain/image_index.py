"""Whether an image is unlike the training images: its distance to the nearest of them, in extractor space.

An image is the mean of its regions' features, whitened by the training images; the distance is the mean of those to the
`NEIGHBORS` nearest centers (k-nearest-neighbor detection: Sun et al. 2022, arXiv 2204.06507). An image is flagged if
its distance is above the 99 % quantile of the validation images.

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

NEIGHBORS = 5
QUANTILE = 0.99
MAX_DIMENSIONS = 64
MAX_CENTERS = 2048
DAMPING = 0.01  # of the mean variance, added before whitening


class ImageIndex(NamedTuple):
    """A small index of the training images.

    Attributes:
        mean: (D,) of the training images.
        projection: (D, P) to whitened principal components.
        residual: the mean length of what the components leave of a training image; 0 if they leave nothing.
        centers: (K, P + 1) training images: their components, and the length of the rest relative to `residual`.
        threshold: the distance above which an image is flagged.
    """

    mean: np.ndarray
    projection: np.ndarray
    residual: np.ndarray
    centers: np.ndarray
    threshold: np.ndarray

    @classmethod
    def build(cls, train: np.ndarray, val: np.ndarray) -> Self:
        """Index the mean features of the training images (N, D); those of the validation images set the threshold.

        Raises:
            ValueError: fewer training images than neighbors, or no validation image.
        """
        if len(train) <= NEIGHBORS or not len(val):
            raise ValueError(f"an index of images needs {NEIGHBORS + 1} training images and 1 validation image")
        mean = train.mean(0)
        centered = train - mean
        variances, directions = np.linalg.eigh(centered.T @ centered / len(train))
        kept = np.argsort(-variances)[:MAX_DIMENSIONS]
        # Directions of almost no variance are damped: dividing by their tiny scale would only amplify noise.
        scale = np.sqrt(np.maximum(variances[kept], 0) + DAMPING * variances.mean() + 1e-12)
        projection = directions[:, kept] / scale
        rest = np.linalg.norm(centered - (centered @ directions[:, kept]) @ directions[:, kept].T, axis=1).mean()
        residual = rest if rest > 1e-6 * np.linalg.norm(centered, axis=1).mean() else 0.0
        index = cls(mean, projection, np.array(residual), np.empty((0, 0)), np.array(0.0))
        chosen = np.random.default_rng(0).permutation(len(train))[:MAX_CENTERS]
        index = index._replace(centers=index._components(train[np.sort(chosen)]))
        return index._replace(threshold=np.quantile(index.distances(val), QUANTILE, method="higher"))

    def distances(self, images: np.ndarray) -> np.ndarray:
        """The distance (N,) of each image, given the means of their features (N, D)."""
        components = self._components(images)
        found = np.empty(len(images))
        for start in range(0, len(images), 256):
            part = components[start : start + 256]
            squares = (part**2).sum(1)[:, None] + (self.centers**2).sum(1) - 2 * part @ self.centers.T
            nearest = np.partition(np.maximum(squares, 0), NEIGHBORS - 1, axis=1)[:, :NEIGHBORS]
            found[start : start + 256] = np.sqrt(nearest).mean(1)
        return found

    def are_unlike(self, images: np.ndarray) -> np.ndarray:
        """Which images (N,) are unlike the training images, given the means of their features (N, D)."""
        return self.distances(images) > self.threshold

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
        """The index of a model directory; None if it has none.

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
        if set(arrays) != set(cls._fields):
            raise ValueError(f"{path}: holds {', '.join(sorted(arrays))}; an index holds {', '.join(cls._fields)}")
        index = cls(**{name: array.astype(np.float64) for name, array in arrays.items()})
        width, dimensions = index.projection.shape if index.projection.ndim == 2 else (-1, -1)
        expected = {"mean": (width,), "residual": (), "threshold": ()}
        shapes = {name: getattr(index, name).shape for name in expected}
        centers = index.centers.shape
        if shapes != expected or len(centers) != 2 or centers[1] != dimensions + 1 or centers[0] < NEIGHBORS:
            raise ValueError(f"{path}: the shapes of its arrays do not fit together")
        return index


def mean_features(images: Iterable[np.ndarray]) -> np.ndarray:
    """The mean of the regions' features of each image, (N, D); zeros for an image without regions."""
    means = [
        features.astype(np.float64).mean(0) if len(features) else np.zeros(features.shape[1]) for features in images
    ]
    return np.stack(means)
