"""Models: built from a seed alone, saved as the same bytes, loaded or refused with the reason."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from fmtrain.artifacts.storage import list_files
from fmtrain.errors import ConfigError, InputError
from fmtrain.models import (
    MODELS,
    build_model,
    check_fits,
    headless,
    load_body,
    load_model,
    load_tokenizer,
    save_model,
)
from fmtrain.schema import plugins
from fmtrain.schema.options import OPTIONS
from fmtrain.schema.training import Bert, HuggingFace, Llama, Model
from tests.fmtrain.fixtures import make_tokenizer, tiny_bert, tiny_llama


def test_weights_depend_on_the_seed_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = tiny_llama(tokenizer).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    two, other = tiny_llama(tokenizer).state_dict(), tiny_llama(tokenizer, seed=2).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_a_built_model_has_the_tokenizer_s_vocabulary(tokenizer: PreTrainedTokenizerBase) -> None:
    for model in (tiny_llama(tokenizer), tiny_bert(tokenizer)):
        assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == len(tokenizer)
        assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (0, 1, 2)
        assert model.training and {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_quickstart_model_has_two_million_parameters() -> None:
    tokenizer = make_tokenizer()
    body = build_model(Llama(), tokenizer, 1).num_parameters() - 192 * len(tokenizer)
    assert 2.0e6 < body + 192 * 4096 < 2.2e6


@pytest.mark.parametrize("name", sorted(MODELS))
def test_saving_twice_gives_the_same_bytes_and_loads(
    name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = {"llama": tiny_llama, "bert": tiny_bert}[name](tokenizer)
    save_model(model, tokenizer, tmp_path / "a")
    save_model(model, load_tokenizer(tmp_path / "a"), tmp_path / "b")
    loaded = load_model(tmp_path / "a", OPTIONS[Model][name].task, tokenizer)
    save_model(loaded, load_tokenizer(tmp_path / "a"), tmp_path / "c")
    assert list_files(tmp_path / "a") == list_files(tmp_path / "b") == list_files(tmp_path / "c")
    with pytest.raises(FileNotFoundError):  # of a work folder that another run has taken over nothing comes again
        save_model(model, tokenizer, tmp_path / "gone" / "out")
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(
        list_files(tmp_path / "a")
    )
    ids = torch.arange(30, 60)[None]
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, loaded(ids).logits)


def test_a_gathered_state_dict_is_saved_once_and_in_its_own_dtype(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """What a ZeRO engine gives: fp32 copies of a bf16 module, tied weights no longer one storage."""
    model = tiny_llama(tokenizer)
    gathered = {k: v.clone() for k, v in model.state_dict().items()}
    save_model(model, tokenizer, tmp_path / "whole")
    save_model(model.to(torch.bfloat16), tokenizer, tmp_path / "gathered", gathered)
    assert list_files(tmp_path / "whole") == list_files(tmp_path / "gathered")
    assert json.loads((tmp_path / "gathered" / "config.json").read_text())["dtype"] == "float32"
    assert model.dtype == torch.bfloat16


def test_generation_stops_at_the_template_s_end(tmp_path: Path, llama_folder: Path) -> None:
    saved = json.loads((llama_folder / "generation_config.json").read_text())
    assert (saved["eos_token_id"], saved["bos_token_id"], saved["pad_token_id"]) == (1, 0, 2)
    tokenizer = load_tokenizer(llama_folder)
    tokenizer.chat_template = tokenizer.chat_template.replace("<eos>", "<spare_0>")
    model = load_model(llama_folder, "causal")
    model.generation_config = GenerationConfig(temperature=0.5)  # transformers refuses to save it without do_sample
    save_model(model, tokenizer, tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [1, 10]
    model.generation_config = GenerationConfig(temperature=0.5, do_sample=True)
    save_model(model, tokenizer, tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["temperature"] == 0.5


def test_a_saved_folder_loads_in_a_new_process_without_us(llama_folder: Path) -> None:
    code = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "m, t = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "ids = t.apply_chat_template([{'role': 'user', 'content': 'hi'}], add_generation_prompt=True)['input_ids']\n"
        "import torch; out = m.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)\n"
        "print(out.shape[1] - len(ids))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(llama_folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout.split()[-1]) <= 4


def test_a_plug_in_whose_classes_cannot_be_imported_is_in_nobodys_way(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugins.CLASSES, "classes_that_are_nowhere", "another")
    assert type(load_model(llama_folder, "causal")).__name__ == "LlamaForCausalLM"


def test_a_folder_that_cannot_be_loaded(tmp_path: Path, llama_folder: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_model(tmp_path / "none", "causal")
    with pytest.raises(InputError, match=r"lacks config\.json; it holds nothing"):
        load_model(tmp_path, "causal")
    with pytest.raises(InputError, match=r"lacks tokenizer_config\.json"):
        load_tokenizer(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(llama_folder, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be loaded as AutoModelForCausalLM: SafetensorError"):
        load_model(broken, "causal")
    weights.unlink()
    with pytest.raises(InputError, match=r"no \.safetensors file"):
        load_model(broken, "causal")
    good = (llama_folder / "config.json").read_text()
    assert '"vocab_size": 368' in good
    wrong = [good.replace('"vocab_size": 368', f'"vocab_size": {size}') for size in ('"many"', "5")]
    for config in ("{", *wrong):
        (broken / "config.json").write_text(config)
        weights.write_bytes((llama_folder / "model.safetensors").read_bytes())
        with pytest.raises(InputError, match="cannot be loaded as AutoModelForCausalLM|lacks"):
            load_model(broken, "causal")
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="the tokenizer in .* cannot be loaded"):
        load_tokenizer(broken)


def test_a_missing_weight_is_never_filled_in(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny_llama(tokenizer)
    weights = model.state_dict()
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_model(model, tokenizer, tmp_path, weights)
    with pytest.raises(InputError, match=r"lacks 1 weights .*model\.layers\.1\.mlp\.up_proj\.weight first"):
        load_model(tmp_path, "causal")


def test_a_head_that_a_folder_lacks_is_drawn_from_the_seed_alone(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    whole = tiny_bert(tokenizer)
    whole.base_model.save_pretrained(tmp_path / "body")
    assert headless(tmp_path / "body") == "BertModel"
    with pytest.raises(InputError, match="it holds another architecture, or was saved in part"):
        load_model(tmp_path / "body", "masked")
    torch.manual_seed(7)
    one, drawn = load_body(tmp_path / "body", "masked", tokenizer, 1)
    torch.manual_seed(8)
    two, _ = load_body(tmp_path / "body", "masked", tokenizer, 1)
    three, _ = load_body(tmp_path / "body", "masked", tokenizer, 2)
    assert drawn and all(name.startswith("cls.") for name in drawn)
    weights = [model.state_dict() for model in (one, two, three)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in drawn)
    body = whole.base_model.state_dict()
    assert all(torch.equal(weights[0][f"bert.{name}"], value) for name, value in body.items())
    save_model(whole, tokenizer, tmp_path / "whole")
    assert headless(tmp_path / "whole") is None
    lame = dict(body)
    del lame["encoder.layer.0.output.dense.weight"]
    whole.base_model.save_pretrained(tmp_path / "lame", state_dict=lame)
    with pytest.raises(InputError, match="lacks .* weights"):
        load_body(tmp_path / "lame", "masked", tokenizer, 1)


def test_a_model_s_own_settings_of_generation_stay(tmp_path: Path, llama_folder: Path) -> None:
    own = {
        "eos_token_id": [9, 1, 7],
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "num_beams": 2,
        "max_length": 99,
    }
    model, tokenizer = load_model(llama_folder, "causal"), load_tokenizer(llama_folder)
    model.generation_config = GenerationConfig(**own)
    save_model(model, tokenizer, tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert {name: saved[name] for name in own} == own and saved["pad_token_id"] == tokenizer.pad_token_id


def test_a_model_for_another_task(llama_folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match="cannot be loaded as AutoModelForMaskedLM"):
        load_model(llama_folder, "masked")
    with pytest.raises(ConfigError, match="choose model=llama"):
        build_model(Bert(), tokenizer, 1, "causal")
    with pytest.raises(ConfigError, match="cannot be built from random weights"):
        build_model(HuggingFace(path="x"), tokenizer, 1)


def test_sizes_that_do_not_go_together(tokenizer: PreTrainedTokenizerBase, llama_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.hidden_size=30 is not a multiple of model\.num_attention_heads=4"):
        tiny_llama(tokenizer, hidden_size=30)
    with pytest.raises(ConfigError, match="refuses these values: .*initializer_range"):
        tiny_llama(tokenizer, initializer_range=2.0)
    with pytest.raises(ConfigError, match=r"model\.num_attention_heads=4 .* model\.num_key_value_heads=3"):
        tiny_llama(tokenizer, num_key_value_heads=3)
    model = load_model(llama_folder, "causal")
    check_fits(model, tokenizer, 128)
    with pytest.raises(ConfigError, match="max_position_embeddings=128"):
        check_fits(model, tokenizer, 129)
    tokenizer.add_tokens(["one more"])
    with pytest.raises(ConfigError, match=r"369 tokens and the model 368 embeddings"):
        check_fits(model, tokenizer, 128)
    with pytest.raises(ConfigError, match=r"369 tokens"):
        load_model(llama_folder, "causal", tokenizer)
