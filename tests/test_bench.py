"""The bench scripts: each says what it does, and those of the engine run on a tiny model from end to end."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BENCH = Path(__file__).parent.parent / "bench"
SCRIPTS = sorted(path.name for path in BENCH.glob("*.py"))
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(script, *arguments, check=True):
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *map(str, arguments)], env=ONE_THREAD, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def scripts(monkeypatch):
    """Let this process import what lies in bench/."""
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_what_it_is_and_how_it_is_called(script):
    text = ast.get_docstring(ast.parse((BENCH / script).read_text(encoding="utf-8")))
    assert text
    if "argparse" in (BENCH / script).read_text(encoding="utf-8"):
        assert text.split()[0] in run(script, "--help").stdout


def test_the_decoding_bench_measures_what_it_is_asked_for_and_all_draw_the_same_tokens(cache):
    out, peers = cache / "decode.json", ("transformers-fp32", "inkstone-fp32")
    done = run("decode_speed.py", cache, "--shape", "tiny", "--rounds", 2, "--threads", 1, "--json", out, "--only", *peers)
    report = json.loads(out.read_text())
    figures = {"one": ("decode", "total"), "eight": ("total", "decode"), "prefill": ("prefill",)}
    wanted = {(load, peer, figure) for load in figures for peer in peers for figure in figures[load]}
    assert {(row["load"], row["peer"], row["figure"]) for row in report["rates"]} == wanted
    assert all(len(row["rounds"]) == 2 and min(row["rounds"]) > 0 for row in report["rates"])
    assert "those of transformers-fp32: transformers-fp32 12, inkstone-fp32 12" in done.stdout
    assert "WARNING" not in done.stdout


def test_an_unknown_peer_is_refused_with_those_there_are(cache):
    done = run("decode_speed.py", cache, "--only", "vllm", check=False)
    assert done.returncode == 1 and "llama.cpp-q8_0" in done.stderr


def test_a_worker_computes_nothing_while_it_is_not_asked(scripts, tmp_path):
    """The worker spins in a thread of its own whenever it may run."""
    import workers

    script = tmp_path / "spin.py"
    script.write_text(
        f"import sys, threading; sys.path.insert(0, {str(BENCH)!r})\nimport workers\nchannel = workers.take_stdout()\n"
        "def spin():\n    while True:\n        pass\nthreading.Thread(target=spin, daemon=True).start()\nprint('noise')\n"
        "workers.answer_questions({'ready': True}, lambda x: {'twice': 2 * x}, channel)\n"
    )
    with workers.Worker("spin", [sys.executable, str(script)], threads=1) as worker:
        assert worker.about == {"ready": True}
        assert worker.ask(x=4) == {"twice": 8}
        before = worker.cpu_seconds()
        time.sleep(0.3)
        assert worker.cpu_seconds() == before
        assert worker.ask(x=5) == {"twice": 10}
        pid = worker._process.pid
    assert not psutil.pid_exists(pid)


def test_a_worker_that_fails_is_an_error(scripts):
    import workers

    with pytest.raises(RuntimeError, match="broken ended with 3"):
        workers.Worker("broken", [sys.executable, "-c", "raise SystemExit(3)"], threads=1)


def test_ratios_are_taken_round_by_round(scripts, capsys):
    import decode_speed

    rates = {("one", "inkstone-int8", "decode"): [10.0, 40.0, 90.0], ("one", "llama.cpp-q8_0", "decode"): [10.0, 20.0, 30.0]}
    decode_speed.print_ratios(rates)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "q8_0" in line]
    assert row.split() == ["one", "inkstone-int8", "llama.cpp-q8_0", "2.00", "1.00", "…", "3.00", "1", "met"]


def test_every_target_is_between_peers_that_there_are(scripts):
    import decode_speed

    for target in decode_speed.TARGETS:
        assert {target.ours, target.peer} <= set(decode_speed.PEERS) and target.load in decode_speed.FIGURES


def test_the_serving_bench_goes_through_all_its_parts(cache):
    out = cache / "serve.json"
    run(
        "serve_load.py", cache, "--shape", "tiny", "--rounds", 1, "--threads", 1, "--streams", 1, 3, "--parallel", 4, "--max-waiting", 4,
        "--disconnects", 20, "--precision", "fp32", "--json", out,
    )  # fmt: skip
    report = json.loads(out.read_text())
    assert [row["streams"] for row in report["throughput"]] == [1, 3]
    left = report["disconnects"]
    assert (left["left"], left["running"], left["waiting"], left["free_slots"], left["last_status"]) == (20, 0, 0, 4, 200)
    for row in (report["overload"]["calm"], report["overload"]["burst"]):
        assert row["refused"] == row["with_retry_after"] > 0


def test_the_gpu_bench_runs_or_says_that_there_is_none(cache):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one, which is measured when somebody wants to")
    assert "nothing was measured" in run("gpu_decode.py", cache).stdout
