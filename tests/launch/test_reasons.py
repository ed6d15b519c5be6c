"""Why a stage is made, in the words of its settings."""

import pytest

from launch.reasons import why

JOB = {
    "models": [{"name": "a", "beta": 0.2}, {"name": "b", "beta": 0.1}],
    "seed": 1,
    "stage": {"steps": 30, "optim": {"name": "adamw", "lr": 0.1}},
    "data": {"name": "local", "keys": []},
}


def payload(**changes: object) -> dict[str, object]:
    parts = {"job": JOB, "revision": 3, "sources": [["a.txt", 10, "x"]], "parents": {"model": "1"}}
    return parts | changes


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"job": {**JOB, "seed": 2}}, "seed: 1 -> 2"),
        ({"job": {**JOB, "stage": {"steps": None, "optim": {"name": "adamw", "lr": 0.2}}}},
         "optim.lr: 0.1 -> 0.2 and 1 more"),
        ({"job": {**JOB, "data": {"name": "hub", "path": "x", "config": None}}}, "data: local -> hub"),
        ({"job": {**JOB, "data": {"name": "local", "keys": ["a", "b"]}}}, "data.keys: [] -> [a,b]"),
        ({"job": {**JOB, "models": [{"name": "a", "beta": 0.2}, {"name": "b", "beta": 0.3}]}},
         "models.b.beta: 0.1 -> 0.3"),
        ({"revision": 4}, "its kind makes another result now (revision 4)"),
        ({"sources": [["a.txt", 11, "y"], ["b.txt", 1, "z"]]}, "input files: 1 new, 1 changed"),
        ({"sources": []}, "input files: 1 gone"),
        ({"sources": [1]}, "other input files"),
        ({"parents": {"model": "2", "examples": "3"}}, "new examples, model"),
        ({"plugins": [{"module": "m"}]}, "another plug-in, or another state of it"),
        ({}, "another identity"),
    ],
)  # fmt: skip
def test_reasons(now: dict[str, object], said: str) -> None:
    assert why(payload(), payload(**now)) == said


def test_a_model_of_the_same_name_at_another_commit() -> None:
    before, now = payload(), payload(parents={"model": "2"})
    old, new = {"model": f"some/model@{'a' * 40}"}, {"model": f"some/model@{'b' * 40}"}
    assert why(before, now, old, new) == f"new model (some/model: commit {'a' * 12} -> {'b' * 12})"
    for other in ({"model": f"another/model@{'b' * 40}"}, {"model": "./folder"}, {}):
        assert why(before, now, old, other) == "new model"
