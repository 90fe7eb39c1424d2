"""Networks that leave Python: ONNX files that any runtime takes."""
