"""Models that are imported while the server runs: weights from S3 or a folder, served under an ARN."""
