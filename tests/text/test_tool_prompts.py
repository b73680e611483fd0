"""Tools in prompts: against Meta's code and templates, and what their text cannot do."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_models.datatypes import RawMessage
from llama_models.datatypes import ToolCall as MetaToolCall
from llama_models.llama3.chat_format import ChatFormat
from llama_models.llama3.tokenizer import Tokenizer as MetaTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from outcrop.text.chat_template import ChatMessage, ChatTemplateError, JinjaChatTemplate, Llama3ChatTemplate
from outcrop.text.template_sandbox import SandboxedTemplate
from outcrop.text.tools import CallStart, TextPiece, Tool, ToolCall, ToolResult

WEATHER = Tool(
    "get_weather",
    "The weather now.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIME = Tool("get_time", "", {"type": "object", "properties": {}})
PARIS = ToolCall("get_weather", {"city": "Paris", "days": [1, 2.5, None, True]}, "c1")
NOON = ToolCall("get_time", {}, "c2")
RAIN = ToolResult('{"sky": "rain"}', "c1")
TWELVE = ToolResult("12:00", "c2", is_error=True)

ONE_CALL = [
    ChatMessage("system", "Be brief."),
    ChatMessage("user", "Weather?"),
    ChatMessage("assistant", "", (PARIS,)),
    ChatMessage("user", "", tool_results=(RAIN,)),
    ChatMessage("assistant", "It rains."),
    ChatMessage("user", "Thanks."),
]
SEVERAL = [
    ChatMessage("user", "Weather and time?"),
    ChatMessage("assistant", "I'll look.", (PARIS, NOON)),
    ChatMessage("user", "Go on.", tool_results=(RAIN, TWELVE)),
]


def spelled(tokenizer, ids: list[int]) -> str:
    names = {i: name for name, i in tokenizer.special_tokens.items()}
    return b"".join(names[i].encode() if i in names else tokenizer.token_bytes(i) for i in ids).decode()


@pytest.fixture(scope="module")
def llama_template() -> str:
    """The chat template of Llama 3.1's Hugging Face checkpoints, as a package of agents carries it."""
    spec = importlib.util.find_spec("ldp")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "nn" / "chat_templates"
    return (folder / "llama3.1_chat_template_hf.jinja").read_text()


# Llama 3's built-in format


@pytest.fixture(scope="module")
def llama(meta_tokenizer) -> Llama3ChatTemplate:
    return Llama3ChatTemplate(meta_tokenizer)


def raw(message: ChatMessage) -> list[RawMessage]:
    """The same for Meta's code."""
    calls = [
        MetaToolCall(call_id=call.id, tool_name=call.name, arguments=dict(call.arguments))
        for call in message.tool_calls
    ]
    results = [RawMessage(role="tool", content=result.content) for result in message.tool_results]
    if results and not message.content:
        return results
    return [*results, RawMessage(role=message.role, content=message.content, tool_calls=calls)]


def test_calls_and_results_are_metas(llama, meta_folder) -> None:
    meta = ChatFormat(MetaTokenizer(meta_folder / "tokenizer.model"))
    good = [
        SEVERAL[0],
        SEVERAL[1],
        ChatMessage("user", "Go on.", tool_results=(RAIN, ToolResult("<|eot_id|>12:00", "c2"))),
    ]
    for conversation in (ONE_CALL, good):
        expected = meta.encode_dialog_prompt([form for message in conversation for form in raw(message)])
        assert llama.encode(conversation) == list(expected.tokens)


def test_tools_are_offered_as_in_metas_prompt_format(llama, meta_tokenizer, meta_folder) -> None:
    """`prompt_format.md`, JSON based tool calling. There a user says "Return function calls in JSON format."
    and no more of the form."""
    document = (meta_folder.parent / "llama3_1" / "prompt_format.md").read_text()
    section = document.split("## JSON based tool calling")[1]
    documented = section.split("##### Input Prompt Format\n```\n")[1].split("\n\n\n```")[0]
    listed = re.search(r"in JSON format:\n(\{.*?\n\})\n", documented, re.DOTALL)
    assert listed
    function = json.loads(listed[1])["function"]
    tool = Tool(function["name"], function["description"], function["parameters"])
    system = documented.split("Environment: ipython\n\n")[1].split("<|eot_id|>")[0]
    prompt = llama.encode(
        [ChatMessage("system", system), ChatMessage("user", "Use tools to get latest trending songs")], [tool]
    )
    ours = spelled(meta_tokenizer, prompt)
    form = re.search(r"in JSON format(: .*)<\|eot_id\|>", ours)
    assert form
    on_one_line = documented.replace('["n"]', '[\n                "n"\n            ]')
    assert ours.replace(form[1], ".").rstrip() == on_one_line.rstrip()


def test_parallel_calls_and_errors(llama, meta_tokenizer) -> None:
    text = spelled(meta_tokenizer, llama.encode(SEVERAL, [WEATHER, TIME]))
    assert text.startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnswer the user's question by making use of the "
    )
    assert text.endswith(
        "<|start_header_id|>assistant<|end_header_id|>\n\nI'll look."
        '{"type": "function", "name": "get_weather", '
        '"parameters": {"city": "Paris", "days": [1, 2.5, null, true]}}'
        '{"type": "function", "name": "get_time", "parameters": {}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n{"sky": "rain"}<|eot_id|>'
        "<|start_header_id|>ipython<|end_header_id|>\n\nError: 12:00<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nGo on.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_what_a_turn_holds_comes_back_from_the_parser(llama, meta_tokenizer) -> None:
    text = spelled(meta_tokenizer, llama.encode(SEVERAL[:2]))
    turn = text.split("<|end_header_id|>\n\n")[2].split("<|eot_id|>")[0]
    parser = llama.tool_format.parser([WEATHER, TIME])
    pieces = [*parser.push(turn), *parser.finish()]
    assert pieces[0] == TextPiece("I'll look.")
    assert [piece.name for piece in pieces if isinstance(piece, CallStart)] == ["get_weather", "get_time"]


def test_markers_are_the_models(llama, demo_tokenizer) -> None:
    assert llama.tool_format.markers == ("<|python_tag|>",)
    assert JinjaChatTemplate("", demo_tokenizer).tool_format.markers == ()


# Templates that know tools

HERMES = """\
{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% for name, kind in tool.function.parameters.properties.items() %}
{{ name }}: {% if kind.type == 'string' %}str{% else %}{{ kind.type }}{% endif %}

{% endfor %}{% endfor %}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}{{ '\n' }}
{%- if m.role == 'tool' %}<tool_response id={{ m.tool_call_id }} name={{ m.name }}>
{{ m.content | tojson(ensure_ascii=true) }}</tool_response>{% else %}{{ m.content }}{% endif %}
{%- for call in m.tool_calls %}{% set f = call.function %}

<tool_call>{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def hugging_face(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    forms: list[dict[str, Any]] = []
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    for m in messages:
        for r in m.tool_results:
            content = f"Error: {r.content}" if r.is_error else r.content
            forms.append(
                {"role": "tool", "tool_call_id": r.call_id, "name": names[r.call_id], "content": content}
            )
        if m.tool_calls:
            calls = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
                for c in m.tool_calls
            ]
            forms.append({"role": m.role, "content": m.content, "tool_calls": calls})
        elif m.content:
            forms.append({"role": m.role, "content": m.content})
    return forms


def function(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {
        "type": "function",
        "function": {"name": tool.name, **described, "parameters": dict(tool.schema)},
    }


def rendered(template: str, messages: list[ChatMessage], tools: list[Tool], **variables: Any) -> str:
    (text,), _ = render_jinja_template(
        [hugging_face(messages)],
        tools=[function(tool) for tool in tools] or None,
        chat_template=template,
        add_generation_prompt=True,
        **variables,
    )
    return text


@pytest.mark.parametrize("conversation", [ONE_CALL, SEVERAL], ids=["one call", "several"])
def test_a_template_that_knows_tools(demo_tokenizer, conversation: list[ChatMessage]) -> None:
    ids = JinjaChatTemplate(HERMES, demo_tokenizer).encode(conversation, [WEATHER, TIME])
    assert ids == demo_tokenizer.encode_prompt(rendered(HERMES, conversation, [WEATHER, TIME]))


@pytest.mark.parametrize("tools", [[WEATHER, TIME], []], ids=["tools", "no tools"])
def test_llamas_template(small_hf_tokenizer, llama_template: str, tools: list[Tool]) -> None:
    ids = JinjaChatTemplate(llama_template, small_hf_tokenizer).encode(ONE_CALL, tools)
    expected = rendered(llama_template, ONE_CALL, tools, bos_token="<|begin_of_text|>")
    assert ids == small_hf_tokenizer.encode_prompt(expected)


def test_llamas_template_with_more_than_it_takes(small_hf_tokenizer, llama_template: str) -> None:
    """It refuses parallel calls and drops text beside a call: they become messages of their own."""
    template = JinjaChatTemplate(llama_template, small_hf_tokenizer)
    text = spelled(small_hf_tokenizer, template.encode(SEVERAL, [WEATHER, TIME]))
    turns = re.findall(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", text, re.DOTALL)
    assert turns[2:] == [
        ("assistant", "I'll look."),
        (
            "assistant",
            '{"name": "get_weather", "parameters": {"city": "Paris", "days": [1, 2.5, null, true]}}',
        ),
        ("ipython", json.dumps(RAIN.content)),
        ("assistant", '{"name": "get_time", "parameters": {}}'),
        ("ipython", '"Error: 12:00"'),
        ("user", "Go on."),
    ]
    alone = [
        SEVERAL[0],
        ChatMessage("assistant", "I'll look.", (PARIS,)),
        ChatMessage("user", "", (), (RAIN,)),
    ]
    assert "I'll look." in spelled(small_hf_tokenizer, template.encode(alone, [WEATHER]))


def test_a_template_that_refuses_anyway(demo_tokenizer) -> None:
    template = JinjaChatTemplate("{{ tools }}{{ raise_exception('no') }}", demo_tokenizer)
    for conversation in (ONE_CALL, SEVERAL):
        with pytest.raises(ChatTemplateError, match="refuses this conversation: no"):
            template.encode(conversation, [WEATHER])


@pytest.mark.parametrize(
    ("source", "knows"),
    [
        ("{% if tools %}{% endif %}", True),
        ("{% if custom %}{% set tools = custom %}{% endif %}{{ tools }}", True),
        ("{{ messages[0].tools }} tools", False),
        ("{% set tools = 1 %}", False),
    ],
)
def test_what_a_template_reads(source: str, knows: bool) -> None:
    assert ("tools" in SandboxedTemplate(source).variables) is knows


# Templates that know nothing of tools

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


def test_a_template_without_tools(demo_tokenizer) -> None:
    template = JinjaChatTemplate(CHATML, demo_tokenizer)
    text = spelled(demo_tokenizer, template.encode([ChatMessage("system", "Be."), *SEVERAL], [WEATHER, TIME]))
    system, *turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n", text, re.DOTALL)
    assert system[1].startswith("Be.\n\nAnswer the user's question by making use of the following functions")
    for tool in (WEATHER, TIME):
        assert json.dumps(function(tool), indent=4) in system[1]
    assert turns == [
        ("user", "Weather and time?"),
        (
            "assistant",
            "I'll look.\n"
            '{"name": "get_weather", "parameters": {"city": "Paris", "days": [1, 2.5, null, true]}}\n'
            '{"name": "get_time", "parameters": {}}',
        ),
        (
            "user",
            'Function result: {"name": "get_weather", "result": "{\\"sky\\": \\"rain\\"}"}\n'
            'Function result: {"name": "get_time", "error": "12:00"}\n'
            "Go on.",
        ),
    ]


def test_without_tools_nothing_is_offered(demo_tokenizer) -> None:
    template = JinjaChatTemplate(CHATML, demo_tokenizer)
    text = spelled(demo_tokenizer, template.encode([ChatMessage("user", "Hi")]))
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_demo_models_template(demo_tokenizer) -> None:
    template = JinjaChatTemplate(demo_tokenizer.chat_template, demo_tokenizer)
    text = spelled(demo_tokenizer, template.encode(SEVERAL, [WEATHER]))
    assert text.count("<|im_start|>") == 5  # system, user, assistant, user, and the answer's


# What text in tools, calls and results cannot do

HOSTILE = st.lists(
    st.sampled_from(
        [
            "<|im_end|>",
            "<|im_start|>",
            "<|eot_id|>",
            "<|",
            "|>",
            "im_end",
            "\n",
            " ",
            '"',
            "\\",
            "\ufdd0",
            "é",
            "x",
        ]
    )
).map("".join)
HOSTILE_JSON = st.recursive(
    HOSTILE | st.integers(),
    lambda v: st.lists(v, max_size=2) | st.dictionaries(HOSTILE, v, max_size=2),
    max_leaves=5,
)
HOSTILE_OBJECT = st.dictionaries(HOSTILE, HOSTILE_JSON, max_size=2)
# Templates that look into a schema find there what schemas have.
HOSTILE_SCHEMA = st.builds(
    lambda properties, more: {**more, "properties": properties},
    st.dictionaries(HOSTILE, st.fixed_dictionaries({"type": HOSTILE, "description": HOSTILE}), max_size=2),
    HOSTILE_OBJECT,
)


@pytest.mark.parametrize("source", [HERMES, CHATML, "llama", "built in"])
def test_no_text_becomes_a_control_token(request, source: str) -> None:
    tokenizer = request.getfixturevalue("demo_tokenizer" if "<|im_" in source else "small_tokenizer")
    if source == "llama":
        source = request.getfixturevalue("llama_template")
    template = Llama3ChatTemplate(tokenizer) if source == "built in" else JinjaChatTemplate(source, tokenizer)

    def controls(conversation: list[ChatMessage], tools: list[Tool]) -> list[int]:
        return [i for i in template.encode(conversation, tools) if i in tokenizer.special_tokens.values()]

    def conversation(text: str, arguments: dict[str, Any], result: str, name: str) -> list[ChatMessage]:
        call = ToolCall(name, arguments, "<|eot_id|>")
        return [
            ChatMessage("user", text),
            ChatMessage("assistant", "", (call,)),
            ChatMessage("user", "", tool_results=(ToolResult(result, "<|eot_id|>"),)),
        ]

    harmless = controls(conversation("x", {}, "x", "f"), [Tool("f", "d", {"properties": {}})])

    @given(
        text=HOSTILE,
        name=HOSTILE,
        description=HOSTILE,
        schema=HOSTILE_SCHEMA,
        arguments=HOSTILE_OBJECT,
        result=HOSTILE,
    )
    def check(text, name, description, schema, arguments, result) -> None:
        tools = [Tool(name, description, schema)]
        assert controls(conversation(text, arguments, result, name), tools) == harmless

    check()


def test_text_from_outside_is_rendered_as_it_is(demo_tokenizer) -> None:
    """Marked or not, the prompt spells what the template renders."""
    tool = Tool(
        "f", "<|im_end|> é", {"properties": {"<|im_start|>": {"type": "string", "enum": ["<|im_end|>"]}}}
    )
    call = ToolCall("f", {"<|im_end|>": ["<|im_end|>", {"é": "é"}]}, "c")
    messages = [
        ChatMessage("user", "x"),
        ChatMessage("assistant", "", (call,)),
        ChatMessage("user", "", tool_results=(ToolResult("é<|im_end|>", "c"),)),
    ]
    ids = JinjaChatTemplate(HERMES, demo_tokenizer).encode(messages, [tool])
    assert spelled(demo_tokenizer, ids) == rendered(HERMES, messages, [tool])


def test_nested_too_deeply(demo_tokenizer, llama) -> None:
    schema: dict[str, Any] = {}
    for _ in range(5_000):
        schema = {"items": schema}
    templates = (JinjaChatTemplate(HERMES, demo_tokenizer), JinjaChatTemplate(CHATML, demo_tokenizer), llama)
    for template in templates:
        with pytest.raises(ChatTemplateError, match="nested too deeply"):
            template.encode(ONE_CALL, [Tool("f", "", schema)])
