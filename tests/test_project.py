"""The project's own files: READMEs whose commands work, recipes that are valid, documents that are true, and no code out of data."""

import ast
import importlib
import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

import inkstone
from inkstone import api
from inkstone.base.errors import ConfigError
from inkstone.base.settings import resolve
from inkstone.cli import main
from inkstone.train.config import PretrainSettings

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")
DOCUMENTS = (*READMES, "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def code_blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", read(name), re.MULTILINE | re.DOTALL)


def commands(name):
    """Return every command line of a document's bash blocks, comments off."""
    lines = [line for block in code_blocks(name, "bash") for line in block.splitlines() if line.strip()]
    return [shlex.join(shlex.split(part, comments=True)) for line in lines for part in line.split(" && ")]


def marked(name, marker):
    """Return the lines of the code block below a marker."""
    (found,) = re.findall(rf"^<!-- {marker} -->\n```bash\n(.*?)^```$", read(name), re.MULTILINE | re.DOTALL)
    return found.splitlines()


def tracked_files():
    """Return the tracked text files; without git (an unpacked archive), those that git would track."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        folders = [ROOT / name for name in ("src", "tests", "bench", "recipes", ".ci")]
        paths = [*ROOT.glob("*.*"), *(path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts)]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


# READMEs


@pytest.mark.parametrize("name", READMES)
def test_set_up_is_one_command_for_the_main_job_and_one_for_the_tests(name):
    assert marked(name, "run") == ["pip install . && inkstone quickstart"]
    assert marked(name, "test") == ["pip install '.[dev]' && python -m pytest"]


def test_both_readmes_have_the_same_commands_and_programs():
    english, chinese = (commands(name) for name in READMES)
    assert english == chinese and len(english) > 12
    assert code_blocks(READMES[0], "python") == code_blocks(READMES[1], "python")


def test_every_verb_stands_in_the_readme():
    shown = " ".join(commands("README.md"))
    assert [verb for verb in main.VERBS if f"inkstone {verb}" not in shown] == []


@pytest.mark.parametrize("command", [line for line in commands("README.md") if line.startswith("inkstone ")])
def test_the_readmes_commands_parse(command):
    verb, rest = main._find_verb(shlex.split(command)[1:])
    module = importlib.import_module("inkstone.cli." + main.module_name(verb))
    root = module.settings_class()
    flags, rest = main._split_settings(root, rest)
    main._parser(verb, module, root).parse_args(rest)
    if root is not None:
        resolve(root, flags=flags)


def test_the_readmes_commands_work_one_after_the_other():
    """What a command makes is new, and what it reads was made by one above it; the program goes last."""
    made, wanted = set(), set()
    for command in commands("README.md"):
        if not command.startswith("inkstone "):
            continue
        verb, rest = main._find_verb(shlex.split(command)[1:])
        module = importlib.import_module("inkstone.cli." + main.module_name(verb))
        _, rest = main._split_settings(module.settings_class(), rest)
        given = vars(main._parser(verb, module, module.settings_class()).parse_args(rest))
        named = [str(given[key]) for key in ("data", "model", "folder") if given.get(key)] + [
            str(r) for r in given.get("runs") or []
        ]
        wanted |= {path for path in named if path.startswith(("runs/", "data/")) and path not in made}
        out = str(given.get("out"))
        assert out == "None" or out not in made, f"{command}: {out} is already there"
        made.add(out)
    assert wanted == set() and {"runs/quickstart", "runs/mine", "data/mine"} <= made
    (program,) = code_blocks("README.md", "python")
    assert re.search(r'data="(.*?)"', program)[1] in made
    (out,) = re.findall(r'out="(.*?)"', program)
    assert out not in made and f'load("{out}")' in program


@pytest.mark.parametrize("name", READMES)
def test_quickstart_does_by_itself_what_the_readme_says(name):
    from inkstone.cli import quickstart

    chosen = main._parser("quickstart", quickstart, None).parse_args([])
    assert f"`{chosen.out}/report.html`" in read(name)
    assert float(chosen.minutes) == 3.5  # "three and a half minutes", "三分半钟"


def test_a_command_that_would_not_parse_is_found():
    from inkstone.cli import evaluate

    with pytest.raises(ConfigError, match="did you mean '--stride'"):
        main._parser("evaluate", evaluate, None).parse_args(["runs/mine", "--strid", "8"])


def test_the_readmes_program_uses_what_there_is():
    (program,) = code_blocks("README.md", "python")
    tree = ast.parse(program)
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    owners = {"inkstone": inkstone, "model": api.Model}
    assert {owner for owner, _ in used} == set(owners)
    assert [name for owner, name in sorted(used) if not hasattr(owners[owner], name)] == []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "pretrain":
            given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
            api.pretrain_settings({name: value for name, value in given.items() if name not in ("data", "out")})


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)", read(name))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (ROOT / link).exists()] == []


# other documents and files


def test_what_the_architecture_page_names_exists():
    page = read("ARCHITECTURE.md")
    named = re.findall(r"`((?:tests/)?[a-z_0-9/]+(?:\.py|/))`", page)
    assert len(named) > 60
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "src/inkstone" / name).exists()]
    assert missing == []


def test_every_package_stands_on_the_architecture_page():
    packages = [path.name for path in (ROOT / "src/inkstone").iterdir() if (path / "__init__.py").exists()]
    assert [name for name in packages if f"| `{name}/` |" not in read("ARCHITECTURE.md")] == []


def test_the_licence_is_whole():
    text = read("LICENSE")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in read("pyproject.toml")


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("**/*.toml")), ids=lambda path: path.stem)
def test_recipes_are_valid(recipe):
    resolve(PretrainSettings, recipe=recipe)


def test_the_version_is_the_same_everywhere():
    assert f'version = "{inkstone.__version__}"' in read("pyproject.toml")
    assert f"## {inkstone.__version__}" in read("CHANGELOG.md")


def test_no_file_names_a_place_on_somebodys_machine():
    place = re.compile(r"(?<![\w.~*/$}-])/(?:home|Users|root|work|mnt|opt)/[\w.-]+")
    own = Path(__file__).resolve()
    found = []
    for path in tracked_files():
        if path.resolve() != own:
            found += [
                f"{path.relative_to(ROOT)}: {hit[0]}" for hit in place.finditer(path.read_text(encoding="utf-8", errors="replace"))
            ]
    assert found == []


# the script of CI


def test_ci_takes_its_command_from_the_readme(tmp_path):
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & stat.S_IXUSR
    linters = re.search(r"^(ruff .*)$", read("CONTRIBUTING.md"), re.MULTILINE)[1].split(" && ")
    assert re.findall(r'^step "([^$"]*?)"', script.read_text(), re.MULTILINE) == linters
    awk = re.search(r"\$\((awk .*? README\.md)\)", script.read_text())[1]
    found = subprocess.run(["bash", "-c", awk], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found.splitlines() == marked("README.md", "test")


@pytest.mark.parametrize("failing", ["install", "ruff", "mypy", "lint-imports", "pytest", None])
def test_ci_fails_with_whatever_fails_first(tmp_path, failing):
    """The real script with stand-ins for the tools, each of which notes that it ran."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text((ROOT / ".ci/run").read_text())
    (tmp_path / "README.md").write_text("<!-- test -->\n```bash\ninstall '.[dev]' && pytest\n```\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("install", "ruff", "mypy", "lint-imports", "pytest"):
        code = 7 if name == failing else 0
        (tools / name).write_text(f"#!/bin/sh\nread line && echo terminal\necho ran {name} CI=$CI\nexit {code}\n")
        (tools / name).chmod(0o755)
    (tools / "python3").write_text('#!/bin/sh\nmkdir -p "$3/bin"\n')
    (tools / "python3").chmod(0o755)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    order = ["install", "ruff", "ruff", "mypy", "lint-imports", "install", "pytest"]
    expected = order if failing is None else order[: order.index(failing) + 1]
    assert re.findall(r"^ran (\S+) CI=true$", done.stdout, re.MULTILINE) == expected
    assert done.returncode == (0 if failing is None else 7)
    assert not list(tmp_path.glob("inkstone-ci-*"))


def test_ci_says_when_the_readme_has_no_command(tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text((ROOT / ".ci/run").read_text())
    (tmp_path / "README.md").write_text("nothing\n")
    done = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "<!-- test -->" in done.stderr


# no code out of data

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save", "torch.hub.load"}
FORBIDDEN_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jinja2", "code", "pty",
}  # fmt: skip
FORBIDDEN_VALUES = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False}


def unsafe(tree):
    """Yield (line, what) of everything in a module that could turn data into code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"import {a.name}") for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            if module.split(".")[0] in FORBIDDEN_MODULES:
                yield node.lineno, f"from {module}"
            yield from ((node.lineno, f"{module}.{a.name}") for a in node.names if f"{module}.{a.name}" in FORBIDDEN_CALLS)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS or name.removeprefix("builtins.") in FORBIDDEN_CALLS:
                yield node.lineno, name
            if name in ("importlib.import_module", "import_module") and not is_known_import(node):
                yield node.lineno, ast.unparse(node)
            for keyword in node.keywords:
                if keyword.arg in FORBIDDEN_VALUES and ast.unparse(keyword.value) == str(FORBIDDEN_VALUES[keyword.arg]):
                    yield node.lineno, f"{name}({keyword.arg}={ast.unparse(keyword.value)})"


def is_known_import(call):
    """Allowed: our own verbs, and the trackers, whose two names stand in the code."""
    argument = ast.unparse(call.args[0])
    return argument.startswith("'inkstone.cli.' + ") or argument == "module"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src/inkstone")))
def test_nothing_turns_data_into_code(path):
    assert list(unsafe(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "import torch, pickle as p", "from pickle import loads", "import yaml", "from os import system", "eval(text)",
        "exec(text)", "builtins.eval(text)", "torch.load(path)", "torch.load(path, weights_only=True)", "os.system(text)",
        "subprocess.run(text, shell=True)", "np.load(path, allow_pickle=True)", "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "importlib.import_module(name)", "__import__(name)", "from jinja2 import Template",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(line):
    assert list(unsafe(ast.parse(line)))


@pytest.mark.parametrize("line", ["model.eval()", "re.compile(text)", "model.compile()", "subprocess.run([text])", "np.load(path)"])
def test_the_search_leaves_harmless_code_alone(line):
    assert not list(unsafe(ast.parse(line)))


def test_the_trackers_are_the_only_modules_imported_by_name():
    text = (ROOT / "src/inkstone/report/trackers.py").read_text()
    assert re.findall(r"for module, project in (.*):", text) == ['(("wandb", wandb), ("trackio", trackio))']
