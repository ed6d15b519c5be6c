"""Users' rows: every form that TRL knows, normalised; everything else refused with its reason."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.rows import Message, PreferenceRow, SftRow, normalise
from fmtrain.schema.sources import Rows

DATA = Rows()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "be brief"}
ASK, TURNS = [SYSTEM, user("q")], [user("q"), bot("x"), user("r")]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [user("q"), bot("a")]}, [user("q"), bot("a")]),
        ({"messages": [SYSTEM, user("q"), bot("a"), user("r"), bot("b")], "source": 1}, None),
        ({"messages": [{**user(" q\n"), "name": "ann", "weight": 1}, bot(" a ")]}, [user(" q\n"), bot(" a ")]),
        ({"prompt": "q", "completion": "a"}, [user("q"), bot("a")]),
        ({"prompt": [SYSTEM, user("q")], "completion": [bot("a")]}, [SYSTEM, user("q"), bot("a")]),
        ({"prompt": [user("q")], "completion": "a"}, [user("q"), bot("a")]),
    ],
)
def test_sft_forms(row: dict[str, Any], messages: list[dict[str, str]] | None) -> None:
    made = normalise(row, DATA)
    assert isinstance(made, SftRow)
    assert made.messages == tuple(Message(m["role"], m["content"]) for m in messages or row["messages"])


def test_other_keys_for_prompt_and_completion() -> None:
    made = normalise({"question": "q", "answer": "a"}, Rows(prompt_key="question", completion_key="answer"))
    assert isinstance(made, SftRow) and made.messages == (Message("user", "q"), Message("assistant", "a"))
    pair = normalise({"question": "q", "chosen": "a", "rejected": "b"}, Rows(prompt_key="question"))
    assert isinstance(pair, PreferenceRow) and pair.prompt == (Message("user", "q"),)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, [user("q")]),
        ({"prompt": [SYSTEM, user("q")], "chosen": "a", "rejected": "b"}, [SYSTEM, user("q")]),
        ({"prompt": [user("q")], "chosen": [bot("a")], "rejected": [bot("b")]}, [user("q")]),
        ({"prompt": "q", "chosen": [bot("a")], "rejected": [bot("b")], "score": 0.5}, [user("q")]),
        ({"chosen": [user("q"), bot("a")], "rejected": [user("q"), bot("b")]}, [user("q")]),
        ({"prompt": "q", "chosen": [user("q"), bot("a")], "rejected": [user("q"), bot("b")]}, [user("q")]),
        ({"prompt": "q", "chosen": [*ASK, bot("a")], "rejected": [*ASK, bot("b")]}, ASK),
        ({"chosen": [*TURNS, bot("a")], "rejected": [*TURNS, bot("b")]}, TURNS),
    ],
)  # fmt: skip
def test_preference_forms(row: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    made = normalise(row, DATA)
    assert isinstance(made, PreferenceRow), made
    assert made.prompt == tuple(Message(m["role"], m["content"]) for m in prompt)
    assert (made.kind, made.chosen, made.rejected) == ("given", "a", "b")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "a JSON list, not an object"),
        ("text", "a JSON str, not an object"),
        ({}, "fits no form; its keys are none"),
        ({"instruction": "q", "output": "a"}, "fits no form; its keys are instruction, output"),
        ({"prompt": "q", "completion": 3}, "fits no form"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["hi"]}, r"messages\[0\] is a JSON str, not a message"),
        ({"messages": [user("q")]}, "the last message is the user's"),
        ({"messages": [bot("a")]}, "no message before the assistant's"),
        ({"messages": [user("q"), bot(" \n")]}, "the response is empty"),
        ({"messages": [{"role": "human", "content": "q"}, bot("a")]}, "role is 'human', not one of system"),
        ({"messages": [{"from": "human", "value": "q"}]}, r"messages\[0\].role is 'None'"),
        ({"messages": [{"role": "user", "content": [{"text": "q"}]}, bot("a")]}, "content is a JSON list"),
        ({"messages": [user("q"), {**bot("a"), "tool_calls": [{}]}]}, "calls of tools are not supported"),
        ({"messages": [user("q"), {"role": ["x"], "content": "a"}]}, r"messages\[1\].role"),
        ({"prompt": " ", "completion": "a"}, "prompt is empty"),
        ({"prompt": "q", "completion": ""}, "the response is empty"),
        ({"chosen": "a", "rejected": "b"}, "no prompt"),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected is a JSON NoneType"),
        ({"prompt": "q", "chosen": "a", "rejected": ""}, "rejected is empty"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt is a JSON int, not a list of messages"),
        ({"prompt": "q", "chosen": [user("z"), bot("a")], "rejected": [user("z"), bot("b")]}, "are not the prompt"),
        ({"prompt": "q", "chosen": [bot("a"), user("r"), bot("c")], "rejected": [bot("b")]}, "chosen is to be one"),
        ({"chosen": [user("q"), bot("a")], "rejected": [user("r"), bot("a")]}, "no prompt"),
        ({"prompt": [user("q"), bot("x")], "chosen": "a", "rejected": "b"}, "the prompt ends with"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(row: Any, reason: str) -> None:
    made = normalise(row, DATA)
    assert isinstance(made, str)
    assert re.search(reason, made)


def test_an_id_is_what_the_row_says() -> None:
    one = normalise({"messages": [user("q"), bot("a")], "id": 1}, DATA)
    same = normalise({"prompt": "q", "completion": "a"}, DATA)
    other = normalise({"prompt": "q", "completion": "b"}, DATA)
    pair = normalise({"prompt": "q", "chosen": "a", "rejected": "b"}, DATA)
    assert isinstance(one, SftRow) and isinstance(other, SftRow) and isinstance(pair, PreferenceRow)
    assert one == same
    assert one.id != other.id
    assert one.group == other.group == pair.group  # one prompt, one side of the split


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "messages", "prompt", "chosen", "rejected"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(["messages", "prompt", "completion", "chosen", "rejected", "x"])


@given(row=st.dictionaries(KEYS, JSON, max_size=5) | JSON)
def test_any_json_gives_a_row_or_a_reason(row: Any) -> None:
    made = normalise(row, DATA)
    assert made
    if isinstance(made, PreferenceRow):
        assert made.prompt and made.chosen != made.rejected
    elif isinstance(made, SftRow):
        assert len(made.messages) > 1 and made.messages[-1].role == "assistant"
