"""Batch jobs: files of requests, answered in the capacity that online calls leave."""
