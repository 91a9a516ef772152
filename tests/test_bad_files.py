"""Files and streams that cannot be read or written: a sentence with its place, and exit code 2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sim
from sim import catalog
from sim.cli import main
from sim.files import check_writable
from tests.test_bad_input import MACHINE, MODEL, said

TINY_CONFIG = {
    "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
    "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16", "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the user's own rows."""
    monkeypatch.setenv("ROOFCAST_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "home"


@pytest.mark.parametrize("path", ["", "/dev", "/no-such-folder/x.png", "a\0b.png", "/proc/1/x.png"])
def test_what_cannot_be_written_is_known_beforehand(path: str) -> None:
    if path.startswith("/proc") and os.access("/proc/1", os.W_OK):
        pytest.skip("whoever is root may write anywhere")
    said(lambda: check_writable(path))


@pytest.mark.parametrize(
    "line",
    [["estimate", MODEL, MACHINE, "--plot", ""], ["guide", "--write", ""], ["guide", "--write", "/no/such/x.md"]],
)
def test_a_file_without_a_name_is_refused_before_anything_is_computed(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("roofcast: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("model = [3]", "a.toml: model number 1: "),
        ("model = 3", "expected tables [[model]]"),
        ("a = " + "[" * 10**5, "a.toml: not readable as TOML"),
        ("\0", "hint: mend or remove the file"),
    ],
)
def test_a_broken_row_of_the_users_own_is_named(home: Path, row: str, problem: str) -> None:
    (home / "models" / "a.toml").write_text(row)
    assert problem in said(catalog.models)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("count = 2", f"count = {10**12}", "layers: expected at most 10,000 layers"),
        ("hidden_size = 64", f"hidden_size = {10**15}", "hidden_size: expected at most 2147483647"),
        ('id = "own"', 'id = ""', "expected an id that is not empty"),
        ('other = "bf16"', 'other = "bf61"', 'own: native_format.other: no weight format is called "bf61"; hint: did'),
    ],
)
def test_a_row_that_cannot_be_computed_is_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, problem: str
) -> None:
    config = tmp_path / "own.json"
    config.write_text(json.dumps(TINY_CONFIG))
    assert main(["models", "add", str(config)]) == 0
    stored = home / "models" / "own.toml"
    assert old in stored.read_text()
    stored.write_text(stored.read_text().replace(old, new))
    catalog.reload()
    capsys.readouterr()
    assert main(["fits", "own", "h100"]) == 2
    assert problem in capsys.readouterr().err
    stored.unlink()
    catalog.reload()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "models add --name: expected a name with a letter or a digit, got ''"),
        ("///", "expected a name with a letter or a digit"),
        ("Llama 70B", 'there is a model "llama-3.3-70b" already, which answers to "Llama 70B"'),
    ],
)
def test_an_added_model_needs_a_name_of_its_own(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, problem: str
) -> None:
    config = tmp_path / "own.json"
    config.write_text(json.dumps(TINY_CONFIG))
    assert main(["models", "add", str(config), "--name", name]) == 2
    assert problem in capsys.readouterr().err
    assert list((home / "models").iterdir()) == []


def test_config_files_too_large_and_keys_missing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "own.json"
    config.write_bytes(b" " * 20_000_001)
    assert main(["models", "add", str(config)]) == 2
    assert "own.json: expected a config.json of at most 20,000,000 bytes" in capsys.readouterr().err
    config.write_text(json.dumps(TINY_CONFIG | {"hidden_size": None}))
    assert main(["models", "add", str(config)]) == 2
    assert capsys.readouterr().err.count("hidden_size: required key is missing") == 1
    assert main(["models", "add", ""]) == 2
    assert "expected the name of a config.json" in capsys.readouterr().err


def test_a_home_of_nobody_is_a_folder_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOFCAST_HOME", "~no-such-user/x")
    assert MODEL in catalog.models()


def test_a_scenario_does_not_answer_for_the_users_rows(home: Path) -> None:
    (home / "models" / "a.toml").write_text("broken = [")
    text = said(lambda: sim.run(Path(__file__).parents[1] / "scenarios" / "small-team-rag.toml"))
    assert text.startswith(str(home)) and len(text.splitlines()) == 1


@pytest.mark.parametrize("path", [None, 3, "", b"x", []])
def test_a_scenario_needs_a_name(path: Any) -> None:
    assert said(lambda: sim.run(path)).startswith("expected the name of a TOML file, found ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_that_nobody_writes_to_is_an_empty_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    tables = {"traffic": {"path": str(tmp_path / "pipe")}, "name": "x", "workload": {},
              "deployment": [{"model": "llama-3.1-8b", "hardware": "h100"}]}  # fmt: skip
    assert "is a named pipe, expected a file to write" in said(lambda: check_writable(tmp_path / "pipe"))
    assert "name: required key is missing" in said(lambda: sim.run(tmp_path / "pipe"))
    assert "is empty" in said(lambda: sim.simulate(tables))
    assert "is empty" in said(lambda: sim.validate(tmp_path / "pipe"))


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b'nome = "x"')
    os.close(write)
    assert "nome: unknown key (line 1)" in said(lambda: sim.run(f"/dev/fd/{read}"))
    os.close(read)


def test_missing_tables_come_with_how_to_write_them(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    text = said(lambda: sim.run(tmp_path / "empty.toml"))
    assert "workload: required key is missing; hint: write [workload]" in text
    assert "deployment: required key is missing; hint: write [[deployment]]" in text


def start(line: str, **given: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "sim", *line.split()], text=True, stderr=subprocess.PIPE, **given)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_a_sentence() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full, start("engines", stdout=full) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "stdout: cannot be written" in err and "Traceback" not in err


def test_an_interrupt_ends_at_once_and_in_one_line() -> None:
    with start("recommend --users 200", stdout=subprocess.PIPE) as process:
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "roofcast: interrupted\n")
