"""Smaller and faster models of the same quality: quantize, prune, distill, factorize.

Nothing here unpickles: models come as ONNX, or as safetensors weights with a named factory.
"""
