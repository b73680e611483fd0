"""The HTTP surface: Bedrock's runtime and control plane. Imports no torch and nothing of the engine but its
client."""
