"""The CPU: `eager` has operations in torch eager mode, `native` in C++."""
