"""A chat template is foreign code: rendered as by transformers where it is in good faith, within limits where not."""

import json
import os
import resource
from importlib.resources import files
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from fmtrain.data import template_process, templates
from fmtrain.data.chat import Chat, Encoded, encode_chat, encode_chats, end_token_ids, ensure_chat_template
from fmtrain.data.templates import TemplateFault, Wanted, fix_date, render
from fmtrain.errors import InputError
from fmtrain.models import load_tokenizer
from fmtrain.schema.fields import TEMPLATE_DATE
from tests.fmtrain.fixtures import make_tokenizer

CHAT = [{"role": "user", "content": "a question\n"}, {"role": "assistant", "content": "an answer"}]
WANTED = Wanted(CHAT, [(1, True), (2, False)])
ORDINARY = sorted(path.name for path in (files("trl") / "chat_templates").iterdir() if path.name.endswith(".jinja"))

# Each takes 20 s or gigabytes, reads what is not its own, or breaks the renderer, where nothing limits it.
COMPUTES = {
    "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}{% endfor %}",
    "nested": "{% for i in range(9999) %}" * 3 + "x" * 9 + "{% endfor %}" * 3,
    "silent loop": "{% for a in 'x' * 9999999 %}{% for b in 'x' * 9999 %}{% endfor %}{% endfor %}",
    "power": "{{ (10 ** (10 ** 8)) % 7 }}",
    "power of power": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "sort": "{% for i in range(9999) %}{{ (range(99999) | sort(reverse=true) | list)[:0] }}{% endfor %}",
    "lipsum": "{{ lipsum(999999)[:1] }}",
    "replace": "{% for i in range(99999) %}{% set x = ('ab' * (9999999 + i)) | replace('a', 'c') %}{% endfor %}",
    "folded": "{{ [" + "'a' * 9999999 ~ " * 200 + "''] | length }}",
}
ALLOCATES = {
    "multiplied": "{{ 'a' * 10 ** 10 }}",
    "multiplied in constants": "{{ 'a' * 10000000000 }}",
    "multiplied list": "{{ ([0] * 10 ** 10) | length }}",
    "doubled": "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "list grown": "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "center": "{{ 'a' | center(10 ** 10) }}",
    "indent": "{{ ('a\n' * 99999) | indent(99999) }}",
    "format": "{{ '%10000000000d' | format(1) }}",
    "str.format": "{{ '{:>10000000000}'.format(1) }}",
    "ljust": "{{ 'a'.ljust(10 ** 10) }}",
    "join": "{{ ('a' * 99999) | join('b' * 99999) }}",
    "tojson": "{{ [['a' * 999999] * 9999] | tojson | length }}",
    "strftime": "{{ strftime_now('%A' * 99999999) | length }}",
    "batch": "{{ range(9) | batch(10 ** 9, 'x') | list | length }}",
}
WRITES = {
    "long": "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
    "range": "{{ range(99999) | join('a' * 99) }}{{ range(99999) | join('a' * 99) }}",
}
BREAKS = {
    "huge range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "deep": "{{ " + "(" * 4000 + "1" + ")" * 4000 + " }}",
    "deep list": "{{ " + "[" * 9999 + "]" * 9999 + " }}",
    "deep blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "chain": "{{ 1" + " + 1" * 50_000 + " }}",
    "huge": "{{ 1 }}" * 200_000,
    "syntax": "{% for %}",
    "two without default": {"a": "x", "b": "y"},
    "class": "{{ ''.__class__.__mro__ }}{{ ''['__class__'].__base__.__subclasses__() }}",
    "attr": "{{ messages | attr('__class__') | attr('__mro__') }}{{ (messages | attr('__class__')).x.y }}",
    "globals": "{{ raise_exception.__globals__['os'].system('true') }}",
    "init": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "import": "{% import 'os' as os %}{{ os.system('id') }}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "mutation": "{{ messages.append(1) }}",
    "namespace": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "raise": "{{ raise_exception('a' * 999999) }}",
    "zero": "{{ 1 / 0 }}",
    "undefined": "{{ nothing.at.all }}",
    "type": "{{ 'a' + 1 }}",
}
HOSTILE = {f"{kind}: {k}": t for kind, ts in {"computes": COMPUTES, "allocates": ALLOCATES, "writes": WRITES,
           "breaks": BREAKS}.items() for k, t in ts.items()}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("hostile")
    make_tokenizer().save_pretrained(str(folder))
    return load_tokenizer(folder)


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "SECONDS", 0.5)


@pytest.fixture(scope="module")
def hurried() -> templates._Process:
    """A process with a shorter limit, shared by all that leave it alive."""
    return templates._Process()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_an_input_error_that_names_it(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    hurried: templates._Process,
    half_a_second: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within its processor time and memory, which the kernel counts, whatever else the machine does."""
    monkeypatch.setattr(templates, "_process", hurried)
    tokenizer.chat_template = HOSTILE[name]
    before = spent(hurried)
    with pytest.raises(InputError) as caught:
        encode_chat(tokenizer, CHAT)
    assert spent(hurried) - before < 2 * 0.5 + 3  # to compile it, to render a row, and a new process's start
    said = str(caught.value)
    assert str(tokenizer.name_or_path) in said and len(said) < 1000
    assert name.startswith("breaks") or isinstance(caught.value, TemplateFault)  # of such a template one row is enough
    if hurried.child is not None and hurried.child.poll() is None:
        assert peak(hurried.child.pid) < template_process.MEMORY / 2**10 + 100_000


def spent(process: templates._Process) -> float:
    """Processor seconds of the children that have ended, and of one that lives."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = process.child is not None and process.child.poll() is None
    words = Path(f"/proc/{process.child.pid}/stat").read_text().split() if process.child and alive else ["0"] * 15
    return ended.ru_utime + ended.ru_stime + (int(words[13]) + int(words[14])) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> int:
    """The most memory that a process has held, kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_after_a_hostile_template_the_next_renders(
    tokenizer: PreTrainedTokenizerBase,
    hurried: templates._Process,
    half_a_second: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(templates, "_process", hurried)
    for template in (COMPUTES["power of power"], ALLOCATES["doubled"], BREAKS["deep list"]):
        tokenizer.chat_template = template
        assert end_token_ids(tokenizer) == [tokenizer.eos_token_id]  # as of a model that was never tuned on chats
        tokenizer.chat_template = "{{ messages[0].content }}"
        assert render(tokenizer, [WANTED]) == [["a question\n"] * 2]


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_template_renders_as_by_transformers(
    name: str, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the clock, which is made to agree here."""
    template = (files("trl") / "chat_templates" / name).read_text()
    tokenizer.chat_template = "{%- macro strftime_now(f) %}" + TEMPLATE_DATE + "{% endmacro %}" + template
    (ours,) = render(tokenizer, [WANTED])
    try:
        asked = tokenizer.apply_chat_template(CHAT[:1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=False)
    except Exception as e:
        assert isinstance(ours, InputError) and str(e) in str(ours)  # it wants images, say
        return
    assert ours == [asked, whole]


def test_one_row_refused_is_one_row(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif -%}"
        "{{ messages[0].content }}"
    )
    system = Wanted([{"role": "system", "content": "x"}], [(1, False)])
    odd = Wanted([{"role": "user", "content": "\ud800 ü"}], [(1, False)])
    first, second, third = render(tokenizer, [WANTED, system, odd])
    assert (first, third) == (["a question\n"] * 2, ["\ud800 ü"])
    assert isinstance(second, InputError) and "no system here" in str(second) and "roles system" in str(second)


def test_a_chat_that_is_too_much_to_render_is_one_row(tokenizer: PreTrainedTokenizerBase) -> None:
    """Two thousand turns, each rendered with all before it, are a gigabyte: the row's fault, and not the template's."""
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    endless = Chat([{**message, "content": "word " * 200} for message in CHAT] * 1000)
    first, second, third = encode_chats(tokenizer, [Chat(CHAT), endless, Chat(CHAT * 20)])
    assert isinstance(first, Encoded) and isinstance(third, Encoded)
    assert isinstance(second, InputError) and "2000 messages with 1000 turns" in str(second)


def test_chance_and_the_clock_are_the_same_each_time(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y %H:%M') }}{{ lipsum(1) }}{{ range(99) | random }}"
    fix_date(tokenizer, "2024-02-29")
    tokenizer.save_pretrained(str(tmp_path))
    here = render(tokenizer, [WANTED, WANTED])
    assert here[0] == here[1] and here[0][0].startswith("29 Feb 2024 00:00")
    monkeypatch.setattr(templates, "_process", templates._Process())  # another day, another process
    assert render(load_tokenizer(tmp_path), [WANTED]) == here[:1]  # the day went with the tokenizer


def test_a_template_without_a_clock_leaves_no_date(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    made = make_tokenizer()
    fix_date(made, "2024-02-29")
    made.save_pretrained(str(tmp_path))
    assert "template_date" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_the_process_holds_no_key_and_writes_nothing(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted")
    monkeypatch.setattr(templates, "_process", templates._Process())
    tokenizer.chat_template = "x"
    render(tokenizer, [WANTED])
    child = templates._process.child
    assert child is not None
    assert "planted" not in Path(f"/proc/{child.pid}/environ").read_text()
    lines = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:].split()[0] for line in lines}
    assert limits["Max file size"] == limits["Max processes"] == limits["Max core file size"] == "0"
    assert int(limits["Max address space"]) < 2**30 + template_process.MEMORY
    assert child.stdin is not None
    child.stdin.close()  # as when its parent is gone, however that went
    assert child.wait() == 0


def test_a_tokenizer_that_begins_texts_gets_a_template_that_does(tokenizer: PreTrainedTokenizerBase) -> None:
    from tokenizers.processors import TemplateProcessing

    plain, adding = make_tokenizer(), make_tokenizer()
    bos = adding.bos_token_id
    adding.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    for made, first in ((plain, None), (adding, bos)):
        made.chat_template = None
        assert ensure_chat_template(made)
        encoded = encode_chat(made, CHAT)
        assert (encoded.ids[0] == bos) == (first is not None) and encoded.ids.count(bos) == (first is not None)


def test_the_environment_that_changes_arithmetic_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from fmtrain.models.device import arithmetic

    for name in [n for n in os.environ if n.startswith("NVIDIA_")]:
        monkeypatch.delenv(name)
    before = arithmetic()
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    assert arithmetic() == {**before, "NVIDIA_TF32_OVERRIDE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
