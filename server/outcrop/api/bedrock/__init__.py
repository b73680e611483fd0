"""The `bedrock` service, the control plane: which foundation models there are."""
