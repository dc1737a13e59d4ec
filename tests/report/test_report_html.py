import pytest

from inkstone.report.html import Html, both, el, escape, has_chinese, join
from inkstone.report.numbers import chinese_count, chinese_seconds, figure, percent


@pytest.mark.parametrize("text", ["</script><img src=x onerror=alert(1)>", "\" onmouseover='x'", "&lt;b&gt;", "]]><svg onload=1>"])
def test_text_can_leave_neither_an_element_nor_an_attribute(text):
    made = el("p", text, title=text, data_x=text)
    assert made.count("<") == 2 and made.count(">") == 2 and made.count('"') == 4 and "'" not in made


def test_markup_passes_once_and_is_not_escaped_twice():
    inner = el("b", "a & b")
    assert isinstance(inner, Html) and join(inner, " & ") == "<b>a &amp; b</b> &amp; "


def test_markup_as_an_attribute_is_escaped_all_the_same():
    assert el("p", title=Html('"><script>')) == '<p title="&quot;&gt;&lt;script&gt;"></p>'


def test_letters_no_page_may_hold_become_the_replacement_sign():
    assert escape("a\x00b\ud800c\u202ed\te\r\nf") == "a\ufffdb\ufffdc\ufffdd\te\nf"
    escape("\udfff").encode("utf-8")


def test_attributes_are_left_out_bare_or_named():
    assert el("input", class_="a", for_="b", hidden=True, lang=None, disabled=False) == '<input class="a" for="b" hidden>'


def test_both_languages_stand_side_by_side():
    assert both("ink", "墨") == '<span class="en" lang="en">ink</span><span class="zh" lang="zh-CN">墨</span>'
    assert has_chinese("ink 墨") and not has_chinese("ink é")


def test_numbers_are_written_for_people():
    assert [figure(v) for v in (0, 1.23456, 0.00001234, 14300, 1e30)] == ["0", "1.235", "1.23e-05", "14.3k", "1.00e+30"]
    assert percent(0.0) == "0%" and percent(0.94237) == "94.2%"
    assert [chinese_count(v) for v in (9, 2170, 43_400, 3_200_000, 25_000_000, 3.1e9)] == [
        "9",
        "2170",
        "4.34 万",
        "320 万",
        "2,500 万",
        "31 亿",
    ]
    assert [chinese_seconds(v) for v in (5, 171, 3725)] == ["5.0 秒", "2 分 51 秒", "1 小时 02 分"]
