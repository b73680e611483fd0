"""Python environments of engines that run beside Outcrop's own: which versions belong together."""
