"""Outcrop: Llama 3 on AWS Inferentia2 and Trainium1 behind an Amazon-Bedrock-compatible API."""

__version__ = "0.1.0"
