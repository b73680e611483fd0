"""Guardrails: made and changed through `bedrock`, applied through `bedrock-runtime`."""
