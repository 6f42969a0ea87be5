"""Model directories: save and load, as safetensors and JSON."""
