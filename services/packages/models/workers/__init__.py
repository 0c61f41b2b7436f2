"""What runs inside the environment of one framework, in a sandbox: `python -m workers.<framework> REQUEST RESULT`.

Each imports the standard library, numpy, onnx, onnxruntime and its framework; never anything of Belvedere, which is not there.
"""
