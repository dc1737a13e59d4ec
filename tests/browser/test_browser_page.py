"""The page of the server in a real browser: chat, branches, what is kept, and what happens when things go wrong."""

import json
import re

import pytest
from page_server import BASE, Reply

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
ANSWER = "An inkstone is a stone for grinding ink."
CUT = ("ERR_INCOMPLETE_CHUNKED_ENCODING",)
REFUSED = ("ERR_CONNECTION_REFUSED", "ERR_FAILED", "ERR_INTERNET_DISCONNECTED")


def ask(page, text):
    """Type a question and send it."""
    page.locator("#message").fill(text)
    page.locator("#message").press("Enter")


def answers(page):
    """Return the shown answers, as elements."""
    return page.locator(".turn.assistant .prose")


def settle(page):
    """Wait until nothing is being written."""
    expect(page.locator(".turn.writing")).to_have_count(0)


def converse(page, *questions):
    """Ask one question after the other, each when the answer before is there."""
    for number, question in enumerate(questions, start=1):
        ask(page, question)
        expect(page.locator(".turn.assistant:not(.writing)")).to_have_count(number)


def test_an_answer_streams_in_and_says_how_it_was_made(visit, server):
    server.script = [Reply(["An ink", "stone is ", "a stone", " for grinding ink."], delay_seconds=0.15)]
    page = visit()
    ask(page, "What is it?")
    expect(answers(page)).to_contain_text("An ink")
    assert page.locator(".turn.writing").count() == 1
    settle(page)
    expect(answers(page)).to_have_text(ANSWER)
    expect(page.locator(".turn.last .facts")).to_contain_text(
        "41.7 tokens/s · first token after 0.12 s · 4 tokens · ended by itself"
    )
    expect(page.locator("#context")).to_contain_text("16 of 1,024 tokens")
    expect(page.locator("#live")).to_have_text(ANSWER)
    assert page.evaluate("document.activeElement.id") == "message"


def test_a_request_says_all_that_is_set_and_what_the_model_recommends(visit, server):
    page = visit()
    page.locator("#open-settings").click()
    page.locator("#system").fill("Be brief.")
    page.locator("#field-temperature").fill("0")
    page.locator("#field-temperature").press("Tab")
    converse(page, "One", "Two")
    sent = server.asked[-1]
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert sent["messages"][0]["content"] == "Be brief." and sent["messages"][-1]["content"] == "Two"
    fields = {"temperature": 0, "top_p": 0.95, "top_k": 50, "repetition_penalty": 1.1, "max_tokens": 256, "stream": True}
    assert fields.items() <= sent.items() and 0 <= sent["seed"] < 2**32 and "min_p" not in sent


def test_changed_settings_outlive_a_reload_and_go_back_to_the_model(visit, server):
    page = visit("#playground")
    page.locator("#field-temperature").fill("1.5")
    page.locator("#field-seed").fill("7")
    page.locator("#field-seed").blur()
    page.reload()
    expect(page.locator("#field-temperature")).to_have_value("1.5")
    expect(page.locator("#field-seed")).to_have_value("7")
    page.locator('[data-field="temperature"] .back').click()
    expect(page.locator("#field-temperature")).to_have_value("0.8")
    page.locator("#reset").click()
    expect(page.locator("#field-seed")).to_have_value("")


def test_stopping_keeps_the_text_and_hangs_up(visit, server):
    server.script = [Reply("Once upon a time", end="hang")]
    page = visit()
    ask(page, "A story")
    expect(answers(page)).to_have_text("Once upon a time")
    page.locator("#send").click()
    settle(page)
    expect(answers(page)).to_have_text("Once upon a time")
    expect(page.locator(".turn.last .facts")).to_contain_text("stopped")
    for _ in range(100):
        if server.hung_up:
            break
        page.wait_for_timeout(20)
    assert server.hung_up == 1


def test_a_second_answer_is_a_version_beside_the_first(visit, server):
    server.script = [Reply("first"), Reply("second")]
    page = visit()
    converse(page, "Say a number")
    page.locator(".turn.last .regenerate").click()
    expect(answers(page)).to_have_text("second")
    settle(page)
    expect(page.locator(".versions .numbers")).to_contain_text("2/2")
    page.get_by_role("button", name="Version before").click()
    expect(answers(page)).to_have_text("first")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Next version"
    page.reload()
    expect(answers(page)).to_have_text("first")


def test_a_fixed_seed_moves_on_for_another_answer(visit, server):
    page = visit()
    page.locator("#open-settings").click()
    page.locator("#field-seed").fill("40")
    page.locator("#field-seed").blur()
    converse(page, "Say a number")
    page.locator(".turn.last .regenerate").click()
    expect(page.locator(".versions .numbers")).to_contain_text("2/2")
    settle(page)
    assert [body["seed"] for body in server.asked] == [40, 41]


def test_an_edited_question_is_a_branch_of_its_own(visit, server):
    server.script = [Reply("one"), Reply("two"), Reply("other one")]
    page = visit()
    converse(page, "First", "Second")
    page.locator(".turn.user").first.hover()
    page.locator(".turn.user .edit").first.click()
    page.locator(".edit-form textarea").fill("Another first")
    page.locator(".edit-form textarea").press("Enter")
    expect(answers(page)).to_have_text(["other one"])
    settle(page)
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["Another first"]
    page.get_by_role("button", name="Version before").click()
    expect(answers(page)).to_have_text(["one", "two"])
    page.reload()
    expect(page.locator(".said")).to_have_text(["First", "Second"])


def test_an_edit_can_be_given_up(visit, server):
    page = visit()
    converse(page, "First")
    page.locator("#message").press("ArrowUp")
    page.locator(".edit-form textarea").fill("Changed")
    page.locator(".edit-form textarea").press("Escape")
    expect(page.locator(".said")).to_have_text(["First"])
    assert len(server.asked) == 1


def test_a_reload_in_the_middle_keeps_the_text_and_offers_another_try(visit, server):
    server.script = [Reply("The beginning of", end="hang"), Reply("All of it")]
    page = visit()
    ask(page, "A story")
    expect(answers(page)).to_have_text("The beginning of")
    page.reload()
    expect(answers(page)).to_have_text("The beginning of")
    expect(page.locator(".turn .banner")).to_contain_text("closed while this was being written")
    page.locator(".turn .retry").click()
    expect(answers(page)).to_have_text("All of it")
    expect(page.locator(".versions .numbers")).to_contain_text("2/2")


@pytest.mark.parametrize(("end", "sentence"), [("cut", "The connection broke off."), ("error", "The server failed while writing.")])
def test_a_failure_in_the_middle_keeps_the_text(visit, server, end, sentence):
    server.script = [Reply("The first half", end=end), Reply("The whole")]
    page = visit(expected=CUT)
    ask(page, "A story")
    expect(page.locator(".turn .banner")).to_contain_text(sentence)
    expect(page.locator(".turn .banner")).to_contain_text("The text up to there was kept.")
    expect(answers(page)).to_have_text("The first half")
    page.locator(".turn .retry").click()
    expect(answers(page)).to_have_text("The whole")
    settle(page)
    page.get_by_role("button", name="Version before").click()
    expect(answers(page)).to_have_text("The first half")


def test_a_server_that_went_away_is_told_and_asked_again(visit, server):
    page = visit(expected=REFUSED)
    page.context.set_offline(True)
    ask(page, "Are you there?")
    expect(page.locator(".turn .banner")).to_contain_text("The server does not answer.")
    page.context.set_offline(False)
    page.locator(".turn .retry").click()
    expect(answers(page)).to_have_text(ANSWER)
    expect(page.locator(".turn.assistant .versions")).to_have_count(0)


def test_a_page_without_its_server_shows_the_conversations_and_finds_it_again(visit, server):
    page = visit(expected=REFUSED)
    converse(page, "First")
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.locator("#notices")).to_contain_text("this page keeps looking for it")
    expect(page.locator(".said")).to_have_text(["First"])
    page.unroute("**/v1/models")
    expect(page.locator("#notices .banner")).to_have_count(0, timeout=10_000)
    expect(page.locator("#pick")).to_be_visible()


def test_a_missing_key_is_asked_for_and_sent_from_then_on(visit, server):
    server.key = "s3cret"
    page = visit(expected=("401",))
    page.locator("#key").fill("wrong")
    page.locator("#key").press("Enter")
    expect(page.locator("#key")).to_have_value("")
    page.locator("#key").fill("s3cret")
    page.locator("#key").press("Enter")
    expect(page.locator("#key-dialog")).not_to_be_visible()
    converse(page, "First")
    page.reload()
    expect(page.locator("#pick option")).to_have_count(2)
    assert "s3cret" not in page.evaluate("JSON.stringify({...localStorage})")


def test_a_remembered_key_is_known_to_the_next_tab(visit, server):
    server.key = "s3cret"
    page = visit(expected=("401",))
    page.locator("#remember").check()
    page.locator("#key").fill("s3cret")
    page.locator("#key").press("Enter")
    expect(page.locator("#key-dialog")).not_to_be_visible()
    expect(visit(context=page.context).locator("#pick option")).to_have_count(2)


def test_a_key_that_is_asked_for_later_does_not_cost_the_question(visit, server):
    page = visit(expected=("401",))
    server.key = "late"
    ask(page, "First")
    page.get_by_role("button", name="Enter the key").click()
    page.locator("#key").fill("late")
    page.locator("#key").press("Enter")
    expect(answers(page)).to_have_text(ANSWER)


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(visit, server):
    server.script = [Reply(status=429, headers={"Retry-After": "2"}), Reply("There you are")]
    page = visit(expected=("429",))
    ask(page, "First")
    expect(page.locator(".turn .retry")).to_have_text("Again in 2 s")
    expect(answers(page)).to_have_text("There you are", timeout=10_000)
    assert len(server.asked) == 2


def test_waiting_for_a_busy_server_can_be_given_up(visit, server):
    server.script = [Reply(status=503, headers={"Retry-After": "90"})]
    page = visit(expected=("503",))
    ask(page, "First")
    expect(page.locator(".turn .retry")).to_have_text("Again in 90 s")
    page.get_by_role("button", name="Do not wait").click()
    expect(page.locator(".turn .retry")).to_have_text("Try again")


def test_a_conversation_beyond_the_context_loses_its_oldest_turns_and_says_so(visit, server):
    page = visit(expected=("400",))
    converse(page, "First", "Second")
    too_long = Reply(status=400, code="context_length_exceeded", message="1,100 of 1,024 tokens")
    server.script = [too_long, too_long, Reply("fits")]
    ask(page, "Third")
    expect(answers(page).last).to_have_text("fits")
    expect(page.locator(".turn.last .aside")).to_contain_text("The 4 oldest messages")
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["Third"]


def test_a_question_that_never_fits_is_told(visit, server):
    server.default = Reply(status=400, code="context_length_exceeded", message="1,100 of 1,024 tokens")
    page = visit(expected=("400",))
    ask(page, "Long")
    expect(page.locator(".turn .banner")).to_contain_text("longer than the model's context. It says: 1,100 of 1,024 tokens")
    assert "max_tokens" in server.asked[0] and "max_tokens" not in server.asked[1] and len(server.asked) == 2


def test_an_answer_goes_on_while_another_conversation_is_open(visit, server):
    server.script = [Reply(["a ", "b ", "c"], delay_seconds=0.3)]
    page = visit()
    ask(page, "Slow one")
    expect(page.locator("#conversations li")).to_have_count(1)
    page.locator("#new").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#conversations .writing")).to_have_count(0, timeout=5_000)
    page.locator("#conversations .open").click()
    expect(answers(page)).to_have_text("a b c")


def test_conversations_are_found_renamed_deleted_and_brought_back(visit, server):
    page = visit()
    for question in ("Apples", "Pears"):
        page.locator("#new").click()
        converse(page, question)
    titles = page.locator("#conversations .title")
    expect(titles).to_have_text(["Pears", "Apples"])
    page.locator("#search").fill("apple")
    expect(titles).to_have_text(["Apples"])
    page.locator("#search").fill("GRINDING")
    expect(titles).to_have_count(2)
    page.locator("#search").fill("")
    page.locator("#conversations li").last.hover()
    page.locator("#conversations .rename").last.click()
    page.keyboard.type("Fruit")
    page.keyboard.press("Enter")
    expect(titles).to_have_text(["Pears", "Fruit"])
    page.locator("#conversations li").first.hover()
    page.locator("#conversations .delete").first.click()
    expect(titles).to_have_text(["Fruit"])
    page.locator("#toast button").click()
    expect(titles).to_have_text(["Pears", "Fruit"])
    expect(page.locator(".said")).to_have_text(["Pears"])
    page.reload()
    expect(titles).to_have_text(["Pears", "Fruit"])


def test_what_is_exported_can_be_imported_elsewhere(visit, server, tmp_path):
    page = visit()
    converse(page, "从前 🖋️", "And then?")
    with page.expect_download() as download:
        page.locator("#export").click()
    path = tmp_path / "all.json"
    download.value.save_as(path)
    assert json.loads(path.read_text("utf-8"))["format"] == "inkstone-conversations"
    other = visit()
    other.locator("#import-file").set_input_files(path)
    expect(other.locator("#toast")).to_contain_text("Added 1 conversation.")
    other.locator("#conversations .open").click()
    expect(other.locator(".said")).to_have_text(["从前 🖋️", "And then?"])
    other.locator("#import-file").set_input_files(path)
    expect(other.locator("#toast")).to_contain_text("Added 0 conversations.")
    other.reload()
    expect(other.locator("#conversations li")).to_have_count(1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "x"}', '{"format":"inkstone-conversations","version":2,"conversations":[]}']
)
def test_a_foreign_file_is_refused_whole(visit, tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    page = visit()
    page.locator("#import-file").set_input_files(path)
    expect(page.locator("#toast")).to_contain_text("is not a file of exported conversations")


def test_damaged_entries_of_a_file_are_counted_and_left_out(visit, tmp_path):
    root = {"id": "root", "parent": None, "role": "root", "text": "", "children": ["a"], "chosen": "a"}
    node = {"id": "a", "parent": "root", "role": "user", "text": "kept", "children": [], "chosen": None}
    good = {"id": "g", "title": "", "created": 1, "updated": 8e15, "model": "", "system": "", "nodes": {"root": root, "a": node}}
    bad = [
        None, {}, {**good, "nodes": {}}, {**good, "updated": "now"}, {**good, "updated": 9e15}, {**good, "nodes": {"root": root}},
        {**good, "nodes": {"root": root, "a": {**node, "role": "system"}}},
        {**good, "nodes": {"root": root, "a": {**node, "children": ["a"], "chosen": "a"}}},
        {**good, "nodes": {"root": {**root, "children": [], "chosen": None}, "a": node}},
    ]  # fmt: skip
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps({"format": "inkstone-conversations", "version": 1, "conversations": [good, *bad]}))
    page = visit()
    page.locator("#import-file").set_input_files(path)
    expect(page.locator("#toast")).to_contain_text("Added 1 conversation. 9 entries were damaged")
    expect(page.locator("#conversations .title")).to_have_text(["kept"])


def test_without_a_database_the_chat_works_and_says_that_nothing_is_kept(visit, server):
    page = visit()
    page.context.add_init_script(
        "delete Window.prototype.localStorage; Object.defineProperty(window, 'indexedDB', { get() { throw new Error('forbidden'); } });"
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('forbidden'); } });"
    )
    page.reload()
    expect(page.locator("#notices")).to_contain_text("This browser keeps no data for this page")
    converse(page, "First")
    expect(answers(page)).to_have_text(ANSWER)
    with page.expect_download():
        page.locator("#export").click()


def test_a_full_database_is_told_and_export_still_works(visit, server):
    page = visit()
    page.evaluate("void (IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); })")
    converse(page, "First")
    expect(page.locator("#notices")).to_contain_text("storage is full")
    with page.expect_download() as download:
        page.locator("#notices").get_by_role("button", name="Export").click()
    assert "First" in download.value.path().read_text("utf-8")


def test_damaged_records_and_settings_do_not_stop_the_page(visit, server):
    page = visit()
    converse(page, "Good one")
    page.evaluate("""() => new Promise((resolve) => {
      localStorage.setItem("inkstone-sampling", "{not json");
      localStorage.setItem("inkstone-theme", "purple");
      localStorage.setItem("inkstone-language", "xx");
      const request = indexedDB.open("inkstone", 1);
      request.onsuccess = () => {
        const transaction = request.result.transaction("conversations", "readwrite");
        transaction.objectStore("conversations").put({ id: "broken", nodes: 7 });
        transaction.oncomplete = () => { request.result.close(); resolve(); };
      };
    })""")
    page.reload()
    expect(page.locator("#notices")).to_contain_text("1 stored conversation is damaged")
    expect(page.locator("#conversations .title")).to_have_text(["Good one"])
    expect(page.locator(".said")).to_have_text(["Good one"])


def test_another_tab_sees_what_was_said(visit, server):
    page = visit()
    other = visit(context=page.context)
    converse(page, "Hello from here")
    expect(other.locator("#conversations .title")).to_have_text(["Hello from here"])


def test_a_clock_that_went_wrong_loses_nothing(visit, server):
    page = visit()
    converse(page, "Now")
    page.context.add_init_script("Date.now = () => 0;")
    page.reload()
    page.locator("#new").click()
    converse(page, "In 1970")
    page.reload()
    expect(page.locator("#conversations .title")).to_have_text(["Now", "In 1970"])


def test_the_picked_model_answers_and_stays_picked(visit, server):
    page = visit()
    page.locator("#pick").select_option("stories-base")
    expect(page.locator("#base-note")).to_be_visible()
    converse(page, "First")
    assert server.asked[-1]["model"] == "stories-base" and server.asked[-1]["max_tokens"] == 64
    page.reload()
    expect(page.locator("#pick")).to_have_value("stories-base")


def test_a_base_model_opens_in_the_playground(visit, server):
    server.models = [BASE]
    page = visit()
    expect(page.locator("#base-hint")).to_contain_text("trained on plain text")
    expect(page.locator("#views [aria-current]")).to_have_text("Playground")
    assert visit("#chat").locator("#views [aria-current]").inner_text() == "Chat"


def test_enter_that_ends_a_composition_sends_nothing(visit, server):
    page = visit()
    page.locator("#message").fill("ni hao")
    page.locator("#message").dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    page.locator("#message").press("Shift+Enter")
    assert page.locator("#message").input_value() == "ni hao\n" and server.asked == []


def test_copying_gives_the_text_as_it_was_written(visit, server):
    server.script = [Reply("**bold** and `code`")]
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    converse(page, "First")
    page.locator(".turn.last").get_by_role("button", name="Copy").click()
    expect(page.locator(".turn.last").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "**bold** and `code`"


def test_the_whole_page_is_small_and_names_nothing_outside(server):
    from importlib.resources import files

    texts = {path.name: path.read_bytes() for path in files("inkstone.serve").joinpath("page").iterdir()}
    assert sum(map(len, texts.values())) < 200_000
    for name, text in texts.items():
        found = set(re.findall(rb"https?://[^\s\"'`)]+", text)) - {b"http://www.w3.org/2000/svg"}
        assert not {address for address in found if b"." in address.split(b"//")[1]}, name
        assert b"innerHTML" not in text and b"insertAdjacentHTML" not in text and b"eval(" not in text and b" style=" not in text, (
            name
        )
