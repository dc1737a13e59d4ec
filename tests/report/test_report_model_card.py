import json

import yaml
from fake_run_folder import make_run

from inkstone.report.model_card import fenced, model_card, write_model_card
from inkstone.report.run_data import read_run


def split(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_is_yaml_with_the_figures(run_folder):
    front, body = split(model_card(read_run(run_folder)))
    assert front["language"] == ["en", "zh"] and front["pipeline_tag"] == "text-generation"
    found = {row["type"]: row["value"] for row in front["model-index"][0]["results"][0]["metrics"]}
    assert found["bits_per_byte"] == read_run(run_folder).number("val_bits_per_byte") and set(found) >= {
        "loss",
        "perplexity",
        "accuracy",
    }
    assert "4-layer GPT with 4.31M parameters" in body and "```toml" in body and "小林" in body


def test_names_and_samples_cannot_leave_their_place(tmp_path):
    run = make_run(tmp_path / 'a: "b" [x](y)\n# c', steps=20)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps({"step": 99, "sample": {"prompt": "p", "text": "```\n# out\n````"}}) + "\n")
    front, body = split(model_card(read_run(run)))
    assert front["model-index"][0]["name"] == 'a: "b" [x](y)\n# c'
    assert "`````text\np```\n# out\n````\n`````" in body
    assert body.lstrip().splitlines()[0] == '# a: "b" \\[x\\](y) \\# c'


def test_fence_is_longer_than_any_inside():
    assert fenced("a", "") == "```\na\n```" and fenced("``` ````", "x").startswith("`````x\n")


def test_a_run_that_knows_nothing_has_a_card(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    path = write_model_card(tmp_path)
    front, body = split(path.read_text(encoding="utf-8"))
    assert path.name == "README.md" and "model-index" not in front and "## Figures" not in body and "license" not in front
