"""Evaluation sets that settings name: pinned when a run is planned, known by what they hold."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fmtrain.artifacts.stage import Stage, read_stage, write_stage
from fmtrain.errors import ConfigError, InputError
from fmtrain.schema.load import identity
from fmtrain.schema.rules import Decontaminate, Filter
from launch.compose import compose
from launch.graph import build
from launch.recipes import option, options
from launch.references import absolute, referenced_files

COMMIT = "0123456789" * 4


@dataclass
class Job:
    """A stage's, of a filter alone."""

    filter: Filter


def job(rule: Decontaminate) -> Job:
    return Job(Filter("x", ["decontaminate"], decontaminate=rule))


def planned(*sets: str) -> Job:
    return absolute(job(Decontaminate(sets=list(sets))), "stages.corpus")


def test_a_name_is_its_commit() -> None:
    made = planned(f"openai/gsm8k@{COMMIT}:main:test")
    (source,) = referenced_files(made, "stages.corpus")
    assert source.path == f"hf://datasets/openai/gsm8k@{COMMIT}" and source.stamp == COMMIT
    assert source.name == "//filter.decontaminate.sets:openai/gsm8k:main:test"
    with pytest.raises(InputError, match=r"filter\.decontaminate\.sets: gsm8k: the hub does not ans.*@SHA:main:test"):
        planned("gsm8k")  # no test may reach the hub


def test_a_hub_that_is_not_there() -> None:
    """For real, in a process that is not told to stay offline: nobody listens at this port."""
    away = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    sets = ["data=stdlib", "filter.rules=[decontaminate]", "filter.decontaminate.sets=[gsm8k]"]
    for given, key in ((sets, "filter.decontaminate.sets: gsm8k"), (["data=hub", "data.path=a/b"], "data.path=a/b")):
        command = [sys.executable, "-m", "launch.cli", "plan", "recipe=corpus_web", *given]
        done = subprocess.run(command, env=away, capture_output=True, text=True, timeout=120)
        assert done.returncode == 3 and f"error: {key}: the hub does not answer (ConnectError" in done.stderr, (
            done.stderr
        )
        assert "Traceback" not in done.stderr


def test_a_folder_is_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "test.jsonl").write_text('{"q": "a"}\n')
    monkeypatch.chdir(tmp_path)
    made = planned("./ours:test")
    assert made.filter.decontaminate.sets == [f"{tmp_path}/ours:test"]
    (first,) = referenced_files(made, "stages.corpus")
    (tmp_path / "ours" / "test.jsonl").write_text('{"q": "b"}\n')
    (second,) = referenced_files(made, "stages.corpus")
    assert first.name == second.name == "//filter.decontaminate.sets:ours:test" and first.identity != second.identity
    with pytest.raises(InputError, match=r"filter\.decontaminate\.sets: .*nosuch is no folder"):
        referenced_files(planned("./nosuch:test"), "stages.corpus")
    (tmp_path / "evals" / "ours").mkdir(parents=True)
    with pytest.raises(InputError, match=r"evals/ours:test means a data set on the hub; for the folder write \./evals"):
        planned("evals/ours:test")
    (tmp_path / "10:00").mkdir()
    monkeypatch.chdir(tmp_path / "10:00")
    with pytest.raises(InputError, match=r"10:00/ours has a colon in it"):
        planned("./ours:test")


def test_what_would_not_be_applied_is_refused() -> None:
    base = ["data=hub", "data.path=x", "filter=none"]
    for rule, given in (("decontaminate", "sets=[gsm8k]"), ("bad_words", "lists=[a.txt]"), ("classifier", "model=a")):
        with pytest.raises(ConfigError, match=rf"filter\.{rule}\..* is given, and {rule} does not stand among"):
            compose([*base, f"filter.{rule}.{given}"])
        compose([*base, f"filter.rules=[{rule}]", f"filter.{rule}.{given}"])
    for given in ("filter.url.domains=[a.txt]", "filter.language.model=a.bin"):
        with pytest.raises(ConfigError, match=r"is given, and .* does not stand among filter\.rules=\[\]"):
            compose([*base, given])
    with pytest.raises(ConfigError, match=r"needs filter\.decontaminate\.files or sets"):
        compose([*base, "filter.rules=[decontaminate]"])
    with pytest.raises(ConfigError, match="did you mean gsm8k"):
        compose([*base, "filter.rules=[decontaminate]", "filter.decontaminate.sets=[gsm9k]"])
    for sets in ("gsm8k,openai/gsm8k:main:test", "./a/ours:test,./b/ours:test"):
        with pytest.raises(ConfigError, match=r"two of .* are called "):
            compose([*base, "filter.rules=[decontaminate]", f"filter.decontaminate.sets=[{sets}]"])


def test_a_setting_of_a_rule_that_is_not_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    base = ["recipe=tokens", "data=hub", "data.path=x"]
    mend = r"does not stand among filter\.rules=\[gopher_repetition,gopher_quality\]: it would not be applied\. "
    mend += r"Add it \(filter\.rules=\[gopher_repetition,gopher_quality,fineweb\]\), or take"
    with pytest.raises(ConfigError, match=rf"^filter\.fineweb\.short_line_thr is given, and fineweb {mend}"):
        compose([*base, "filter=gopher", "filter.fineweb.short_line_thr=0.5"])
    compose([*base, "filter=gopher", "filter.fineweb.short_line_thr=0.67"])  # says nothing
    compose([*base, "filter=fineweb", "filter.rules=[pii]"])  # that c4 is loosened nobody here has said
    own = [*base, "filter@stages.corpus.filter=gopher"]
    with pytest.raises(ConfigError, match=r"^stages\.corpus\.filter\.length\.min_words is given, .*\(stages\.corpus\."):
        compose([*own, "stages.corpus.filter.length.min_words=3"])
    with pytest.raises(ConfigError, match=r"^stages\.corpus\.filter\.rules: there is no rule 'pi'; did you mean pii"):
        compose([*own, "stages.corpus.filter.rules=[pi]"])
    with pytest.raises(ConfigError, match=r"^filter\.rules: there is no rule 'pi'"):
        compose(["recipe=finetune", "model.path=/x", "filter.rules=[pi]"])  # without any corpus
    with pytest.raises(ConfigError, match=r"^stages\.corpus\.dedup\.keep=score needs classifier among filter\.rules"):
        compose([*base, "dedup@stages.corpus.dedup=exact", "stages.corpus.dedup.keep=score"])


def test_a_message_about_a_stages_own_rules_names_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = "stages.corpus.filter.decontaminate"
    own = ["recipe=tokens", "filter@stages.corpus.filter=none", "stages.corpus.filter.rules=[decontaminate]"]
    with pytest.raises(InputError, match=rf"^{key}\.files: .*nothing"):
        build(compose([*own, f"{key}.files=[nothing*.jsonl]"]))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "test.jsonl").write_text('{"q": "a"}\n')
    stage, run = (
        build(compose([*words, "data.modules=[json]"])).nodes[0]
        for words in (
            [*own, f"{key}.sets=['./ours:test']"],
            ["recipe=tokens", "filter.rules=[decontaminate]", "filter.decontaminate.sets=['./ours:test']"],
        )
    )
    assert stage.pinned == [f"{key}.sets=['{tmp_path}/ours:test']"]
    assert identity(stage.job) == identity(run.job)  # where it stands says nothing of what is made
    assert [s.identity for s in stage.sources] == [s.identity for s in run.sources]


@pytest.mark.parametrize("name", options("filter"))
def test_an_option_sets_what_it_applies(name: str) -> None:
    found = yaml.safe_load(option("filter", name))
    assert set(found) - {"name", "rules", "words"} <= set(found["rules"] or ())


def test_settings_take_no_url() -> None:
    for rule in (Decontaminate(files=["https://h/x.jsonl"]), Decontaminate(files=["s3://b/*.jsonl"])):
        with pytest.raises(InputError, match=r"filter\.decontaminate\.files: .* is a URL; expected a path on this"):
            absolute(job(rule), "stages.corpus")


def test_a_setting_and_its_source_are_one_file(tmp_path: Path) -> None:
    """Links in folders are followed when planned; where the file itself is one, it is followed when it is read."""
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "one.txt").write_text("a\n")
    (tmp_path / "v1" / "latest.txt").symlink_to("one.txt")
    (tmp_path / "current").symlink_to("v1")
    rule = Decontaminate(files=[f"{tmp_path}/current/latest.txt"])
    made = absolute(job(rule), "stages.corpus")
    (source,) = referenced_files(made, "stages.corpus")
    stage = Stage("corpus", "corpus", "corpus", "f", "r", {}, {}, {}, [source], str(tmp_path), {})
    write_stage(tmp_path / "stage", stage)
    (read,) = read_stage(tmp_path / "stage").sources
    assert read.path == source.path == made.filter.decontaminate.files[0] == f"{tmp_path}/v1/latest.txt"


def test_rules_that_do_not_fit_the_language() -> None:
    base = ["data=hub", "data.path=x", "filter=none", "filter.rules=[language,gopher_quality]"]
    for languages in ("german", "eng_Latn"):
        with pytest.raises(ConfigError, match=rf"'{languages}' is no language of the built-in detector"):
            compose([*base, f"filter.language.languages=[{languages}]"])
    german = [*base, "filter.language.languages=[de]"]
    with pytest.raises(ConfigError, match=r"stop_words are English, and filter\.language\.languages=\[de\]"):
        compose(german)
    compose([*german, "filter.gopher_quality.min_stop_words=0"])
    compose([*german, "filter.gopher_quality.stop_words=[der,die,das]"])
    compose([*base, "filter.language.languages=[de,en]"])
    with pytest.raises(ConfigError, match="at most three limits"):
        compose([*base[:-1], "filter.rules=[gopher_repetition]", "filter.gopher_repetition.top_n_grams=[1,1,1,1]"])
    with pytest.raises(ConfigError, match="a list is given whole"):
        compose(["data=hub", "data.path=x", "filter.rules+=[pii]"])
    with pytest.raises(ConfigError, match=r"dedup\.steps=\[exact,exact\]: a step stands twice"):
        compose([*base, "filter.language.languages=[en]", "dedup.steps=[exact,exact]"])
