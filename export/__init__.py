"""Runtime models to ONNX, OpenVINO and TensorRT bundles. Installs as `ip2p_fast.export`."""
