"""What computes a network: torch, ONNX Runtime or OpenVINO behind the same call, and the choice among them."""
