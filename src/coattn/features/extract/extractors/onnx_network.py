"""A network that onnxruntime runs on a CPU, where it is faster than torch."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import torch
from torch import Tensor, nn

from coattn._internal.files import require
from coattn.features.extract.pipeline import MOST_STREAMS


class OnnxNetwork:
    """A network, exported when this is made. Its output equals that of torch to rounding.

    Args:
        network: images (B, 3, height, width) to a tensor, in evaluation mode on the CPU.
        sizes: the heights and widths of images that it will get; each has its own graph.

    Raises:
        ModuleNotFoundError: onnxruntime or the exporter's packages are not installed.
        ValueError: the network cannot be exported.
    """

    def __init__(self, network: nn.Module, sizes: Collection[tuple[int, int]]) -> None:
        runtime = require("onnxruntime", "export")
        for package in ("onnx", "onnxscript"):
            require(package, "export")
        self.version: str = runtime.__version__
        options = runtime.SessionOptions()
        # These threads are shared by all calls; each call has its caller's thread besides.
        options.intra_op_num_threads = max(1, torch.get_num_threads() - MOST_STREAMS + 1)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # of threads that other work needs
        self._sessions = {
            size: runtime.InferenceSession(_export(network, size), options, providers=["CPUExecutionProvider"])
            for size in sizes
        }

    def __call__(self, images: Tensor) -> Tensor:
        """Run the network. Several threads may call it at once."""
        session = self._sessions[images.shape[2], images.shape[3]]
        [found] = session.run(None, {session.get_inputs()[0].name: images.numpy(force=True)})
        return torch.from_numpy(found)


def _export(network: nn.Module, size: tuple[int, int]) -> bytes:
    """The network as an ONNX file for any number of images of this size."""
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                network,
                (torch.zeros(2, 3, *size),),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps every failure in an exception that it defines
        cause = error.__cause__ or error
        reason = (str(cause).strip() or repr(cause)).splitlines()[0]
        raise ValueError(
            f"the network cannot be exported for onnxruntime ({reason}); leave out --onnxruntime"
        ) from error
    assert program is not None
    return program.model_proto.SerializeToString()
