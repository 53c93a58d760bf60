"""The models that come with the program, and the state of what is made of heads with them."""

from pathlib import Path

DEFAULT_MODEL = Path(__file__).resolve().parents[2] / "model" / "model.onnx"
DEFAULT_LOCALISER = DEFAULT_MODEL.with_name("localiser.onnx")
HEAD_REVISION = 3  # raised when the same head and models give another result
