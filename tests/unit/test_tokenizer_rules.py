"""What sampler and trainer agree about in a tokenizer."""

from types import SimpleNamespace

from replay.tokenizer import control_tokens, plain


def test_control_tokens_come_longest_first_and_then_by_their_letters() -> None:
    tokenizer = SimpleNamespace(all_special_tokens=["<b>", "<a>", "<end>", "<b>"])
    assert control_tokens(tokenizer) == ("<end>", "<a>", "<b>")


def test_content_can_spell_no_control_token() -> None:
    control = ("<|end|>", "<|")
    assert plain("a <|end|> b", control) == "a < |end|> b"
    assert plain("= #1", control) == "= #1"
