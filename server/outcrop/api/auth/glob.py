"""IAM's wildcards: `*` is any run of characters, `?` any one."""

from __future__ import annotations


def matches(pattern: str, text: str) -> bool:
    """Whether all of `text` fits `pattern`. Takes at most len(pattern) * len(text) steps, whatever they
    hold, which a regular expression would not."""
    at_pattern = at_text = 0
    star, resume = -1, 0
    while at_text < len(text):
        wanted = pattern[at_pattern : at_pattern + 1]
        if wanted == "*":
            star, resume = at_pattern, at_text
            at_pattern += 1
        elif wanted in ("?", text[at_text]):
            at_pattern += 1
            at_text += 1
        elif star >= 0:
            # Let the last star swallow one character more.
            resume += 1
            at_pattern, at_text = star + 1, resume
        else:
            return False
    return not pattern[at_pattern:].strip("*")


def matches_arn(pattern: str, arn: str) -> bool:
    """Whether an ARN fits: part by part, for a wildcard does not reach across the first five colons."""
    if pattern == "*":
        return True
    parts, wanted = arn.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(wanted) and all(map(matches, wanted, parts))
