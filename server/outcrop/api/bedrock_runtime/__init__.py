"""The `bedrock-runtime` service: Converse and InvokeModel, whole and streaming."""
