"""Prompt routers: one ARN that stands for a small and a large model."""
