"""What guardrails look for in texts, whole or as they grow, and what they do about it. Knows no HTTP and no
engine."""
