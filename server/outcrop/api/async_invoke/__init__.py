"""Asynchronous invocations: one request each, answered into S3."""
