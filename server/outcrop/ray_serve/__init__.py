"""Outcrop on several hosts: a Ray Serve application (`deploy/ray/README.md`). Needs the extra `ray`."""
