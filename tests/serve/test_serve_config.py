"""The server's settings: keys, addresses, origins."""

import pytest

from inkstone.base.errors import ConfigError
from inkstone.base.settings import resolve
from inkstone.serve.config import ServeSettings, is_loopback, load_keys


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LocalHost", "::1", "[::1]"])
def test_a_server_for_this_machine_needs_no_key(host):
    assert is_loopback(host) and load_keys(ServeSettings(host=host)) == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "localhost.evil.example"])
def test_any_other_address_is_refused_without_a_key(host):
    with pytest.raises(ConfigError, match=r"--api-key-file"):
        load_keys(ServeSettings(host=host))
    assert load_keys(ServeSettings(host=host, api_key="k")) == ("k",)


def test_keys_come_from_the_flag_and_the_file(tmp_path):
    (tmp_path / "keys").write_text("one\n\n  zwei-密钥  \n", encoding="utf-8-sig")
    assert load_keys(ServeSettings(host="::", api_key="flag", api_key_file=str(tmp_path / "keys"))) == ("flag", "one", "zwei-密钥")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it has none"),
        (b"\n \n", "it has none"),
        (b"a b\n", "line 1"),
        (b"ok\n" + b"x" * 600, "line 2"),
        (b"\xff\xfe", "UTF-8"),
        (b"k" * 70_000, "larger"),
    ],
)
def test_a_bad_file_of_keys_is_a_config_error_that_shows_no_key(tmp_path, content, words):
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as refused:
        load_keys(ServeSettings(api_key_file=str(tmp_path / "keys")))
    assert "xxxx" not in str(refused.value) and "a b" not in str(refused.value)


@pytest.mark.parametrize("path", ["nothing", "", "."])
def test_a_file_of_keys_that_cannot_be_read_is_a_config_error(tmp_path, path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_keys(ServeSettings(api_key_file=str(tmp_path / path)))


@pytest.mark.parametrize("key", ["", "two words", "x" * 513, "line\nbreak", "tab\t"])
def test_a_bad_key_is_refused_without_being_shown(key):
    with pytest.raises(ConfigError, match="api_key: expected a key") as refused:
        resolve(ServeSettings, flags=[("api-key", key)])
    assert key == "" or key not in str(refused.value)


@pytest.mark.parametrize("given", ["http://a.example", "https://a.example:8443,http://b.example", "*"])
def test_origins_stand_side_by_side_with_commas(given):
    assert resolve(ServeSettings, flags=[("cors-origins", given)]).cors_origins == given.split(",")


@pytest.mark.parametrize(
    "given", ["a.example", "ftp://a.example", "https://", "https://a.example/path", "https://u@a.example", "null"]
)
def test_what_is_no_origin_is_refused(given):
    with pytest.raises(ConfigError, match="cors_origins"):
        resolve(ServeSettings, flags=[("cors-origins", given)])


def test_a_star_needs_a_key():
    with pytest.raises(ConfigError, match="every web page"):
        load_keys(ServeSettings(cors_origins=["*"]))
