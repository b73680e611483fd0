"""Llama 3's vocabulary conventions, as Meta's `llama_models.llama3.tokenizer` lays them down."""

from __future__ import annotations

# How text is cut before byte-pair merges.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_TURN = "<|eot_id|>"

_SPECIAL_COUNT = 256
_NAMED = (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    START_HEADER,
    END_HEADER,
    "<|eom_id|>",
    END_OF_TURN,
    "<|python_tag|>",
    "<|image|>",
)


def special_tokens(first_id: int) -> dict[str, int]:
    """The 256 control tokens that follow the ordinary vocabulary; `first_id` is begin_of_text's."""
    reserved = (f"<|reserved_special_token_{2 + i}|>" for i in range(_SPECIAL_COUNT - len(_NAMED)))
    return {name: first_id + i for i, name in enumerate((*_NAMED, *reserved))}
