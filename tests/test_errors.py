"""How a program ends: a sentence and an exit code, never a stack trace."""

import pytest

from vae.errors import UserError, exit_code_of


@pytest.mark.parametrize(
    ("problem", "sentence", "code"),
    [
        (UserError("ratings.csv: is empty."), "ratings.csv: is empty.", 2),
        (UserError("the loss is not finite.", exit_code=1), "the loss is not finite.", 1),
        (OSError(28, "No space left on device", "x"), "No space left on device: 'x'.", 1),
        (MemoryError(), "the memory does not suffice.", 1),
        (KeyboardInterrupt(), "", 130),
    ],
    ids=["input", "run", "disk", "memory", "ctrl-c"],
)
def test_what_no_programmer_did_is_no_stack_trace(problem, sentence, code, capsys):
    def run():
        raise problem

    assert exit_code_of("main.py", run) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(sentence)
    if sentence:
        assert lines[0].startswith("main.py: error: ")
        assert sentence in lines[0]


def test_a_mistake_of_the_program_itself_is_not_hidden():
    def run():
        raise AssertionError

    with pytest.raises(AssertionError):
        exit_code_of("main.py", run)
