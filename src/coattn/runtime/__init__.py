"""Ask an exported model. Needs numpy, Pillow, onnxruntime and msgspec, and never imports torch.

    import coattn.runtime

    predictor = coattn.runtime.Predictor.load("exported")
    predictor.ask("kitchen.jpg", "what is on the table?")

From a shell: `python -m coattn.runtime ask exported kitchen.jpg "what is on the table?"`.
"""

from .predictor import EncodedImage, Predictor

__all__ = ["EncodedImage", "Predictor"]
