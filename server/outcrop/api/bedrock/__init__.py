"""The `bedrock` service, the control plane."""
