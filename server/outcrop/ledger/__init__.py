"""What must survive a restart: control-plane resources, jobs and usage, in one SQL database."""
