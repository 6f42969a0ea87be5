"""Parts of a model as an exported graph has them."""

from __future__ import annotations

import torch

from coattn.export.onnx import biased_layer_norm, fold_standardization
from coattn.nn.layers import UnbiasedLayerNorm
from coattn.nn.regions import RegionEncoder


def test_the_norm_of_mcan_becomes_a_layer_norm() -> None:
    torch.manual_seed(2)
    norm = UnbiasedLayerNorm(24)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    rows = torch.randn(5, 24) * torch.tensor([[0.1], [1.0], [10.0], [1e4], [0.0]])
    torch.testing.assert_close(biased_layer_norm(norm)(rows), norm(rows), atol=1e-4, rtol=0)


def test_standardization_becomes_a_part_of_the_linear_map() -> None:
    torch.manual_seed(3)
    encoder = RegionEncoder(6, dim=4, boxes=True, standardized=True).eval()
    encoder.standardize(torch.randn(6), torch.rand(6) + 0.1)
    inputs = (torch.randn(2, 3, 6), torch.tensor([[True, True, False], [True, True, True]]), torch.rand(2, 3, 4))
    expected = encoder(*inputs)
    fold_standardization(encoder)
    assert not encoder.standardized
    torch.testing.assert_close(encoder(*inputs), expected)
