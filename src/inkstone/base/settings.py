"""Settings: frozen, validated models filled from defaults, a TOML recipe and `--section.key value` flags.

All problems are found at once, each with its dotted path, where the value came from and the nearest valid name.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic
import tomli_w

from inkstone.base.errors import ConfigError
from inkstone.base.family import nearest

MAX_RECIPE_BYTES = 1_000_000
S = TypeVar("S", bound="Settings")


class Settings(pydantic.BaseModel):
    """The base of every config: immutable; unknown keys, NaN, infinity and truth values for numbers are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        """Refuse `--train.batch-size` without its value, which would count as 1."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError(f"expected a number, found {value}")
        return value


def setting(default: Any, help: str, **bounds: Any) -> Any:
    """Return a field with one line of help and optional bounds (`gt`, `ge`, `lt`, `le`)."""
    return pydantic.Field(default, description=help, **bounds)


def resolve(root: type[S], *, recipe: Path | None = None, flags: Sequence[tuple[str, str]] = ()) -> S:
    """Return `root` filled from defaults, then the recipe, then `--section.key value` flags.

    Raises: ConfigError that lists every problem, one a line.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if recipe is not None:
        values = load_recipe(recipe)
        for path in _leaves(values):
            origin[path] = str(recipe)
    problems = []
    for name, text in flags:
        path = name.replace("-", "_")
        origin[path] = f"--{name}"
        if not _assign(values, path.split("."), _parse_flag(root, path, text)):
            problems.append(f"{path}: '{name}' is a section in one place and a value in another")
    try:
        settings = root.model_validate(values)
    except pydantic.ValidationError as error:
        problems += [_explain(root, detail, origin) for detail in error.errors()]
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def load_recipe(path: Path) -> dict[str, Any]:
    """Return a recipe's values; `extends = "other.toml"` (relative to the recipe) is laid below them."""
    return _load_recipe(path, seen=())


def to_toml(settings: Settings) -> str:
    """Return the settings as TOML that `resolve` reads back to an equal object (`None` is left out)."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def field_rows(root: type[Settings], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Return (flag, type, default, help) of every leaf, for help pages and documentation."""
    rows = []
    for name, field in root.model_fields.items():
        inner = _settings_class(field.annotation)
        path = f"{prefix}{name}"
        if inner is not None:
            rows += field_rows(inner, f"{path}.")
        else:
            default = "" if field.default is None else str(field.get_default(call_default_factory=True))
            rows.append((path.replace("_", "-"), _type_name(field.annotation), default, field.description or ""))
    return rows


def _load_recipe(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = Path(path)
    try:
        if path.resolve() in seen:
            raise ConfigError(f"recipe {path} extends itself")
        values = tomllib.loads(_read_recipe(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {path} is not UTF-8 text (byte {error.start})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"recipe {path} is not valid TOML: {error}") from error
    except (OSError, ValueError) as error:  # no permission, a name that is too long, a name with a NUL
        raise ConfigError(f"recipe {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    parent = values.pop("extends", None)
    if parent is None:
        return values
    return _merge(_load_recipe(path.parent / str(parent), (*seen, path.resolve())), values)


def _read_recipe(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(
            f"recipe {path} is {'a folder' if path.is_dir() else 'not a regular file' if path.exists() else 'missing'}"
        )
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise ConfigError(f"recipe {path} is larger than {MAX_RECIPE_BYTES:,} bytes — is it a data file?")
    return path.read_text(encoding="utf-8-sig")


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in values.items():
        paths += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return paths


def _assign(values: dict[str, Any], path: list[str], value: Any) -> bool:
    for key in path[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            return False
    values[path[-1]] = value
    return True


def _parse_flag(root: type[Settings], path: str, text: str) -> Any:
    """Return the flag's text as a TOML value where the field is not plain text, else the text itself."""
    if _field_type(root, path) in (str, str | None):
        return text
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, more digits than an int may have, or nested beyond reason
        return _parse_number(text)


def _parse_number(text: str) -> float | str:
    """Return a number that TOML would not take, such as `.9` or `+5`; anything else stays text."""
    try:
        return float(text)
    except ValueError:
        return text


def _field_type(root: type[Settings] | None, path: str) -> Any:
    head, _, rest = path.partition(".")
    field = root.model_fields.get(head) if root is not None else None
    if field is None:
        return None
    return _field_type(_settings_class(field.annotation), rest) if rest else field.annotation


def _settings_class(annotation: Any) -> type[Settings] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type):
        return annotation.__name__
    names = [str(a) if not isinstance(a, type) else a.__name__ for a in get_args(annotation) if a is not type(None)]
    return "|".join(names)


def _explain(root: type[Settings], detail: Any, origin: dict[str, str]) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    source = f" ({origin[path]})" if path in origin else ""
    if detail["type"] == "extra_forbidden":
        owner: type[Settings] | None = root
        for part in detail["loc"][:-1]:
            owner = _settings_class(owner.model_fields[str(part)].annotation) if owner else None
        names = list(owner.model_fields) if owner else []
        hint = nearest(str(detail["loc"][-1]), names)
        return f"{path}: unknown setting{source}" + (hint or f" (one of: {', '.join(names)})")
    message = detail["msg"].removeprefix("Value error, ")
    found = "" if detail["type"] == "value_error" else f", found {detail['input']!r}"
    return f"{path + ': ' if path else ''}{message}{found}{source}"
