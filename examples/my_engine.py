"""An engine in one file: counts the words of a text, slowly enough to watch."""

import time

from pydantic import BaseModel, Field

from phaseline import Context, InvalidParams, engine


class Text(BaseModel):
    """What to count."""

    text: str = Field(min_length=1, description="the text to count the words of")
    seconds_per_word: float = Field(0.05, ge=0, le=10)


class Words(BaseModel):
    """What was counted."""

    words: int
    longest: str


def check(params: Text) -> None:
    """Runs when a job is submitted: what cannot work is refused before anything is queued."""
    if not params.text.split():
        raise InvalidParams((("text",), "has no words"))


@engine("count_words", version=1, phases={"initializing": 10, "counting": 90, "finalizing": 100}, check=check)
def count_words(params: Text, context: Context) -> Words:
    """Counts the words of a text."""
    # With a function the phase is durable: after a crash the next attempt gets its output back.
    words: list[str] = context.phase("initializing", params.text.split)

    context.phase("counting")
    longest = ""
    for count, word in enumerate(words, start=1):
        time.sleep(params.seconds_per_word)
        if len(word) > len(longest):
            longest = word
            context.partial("longest", longest)
        context.best(Words(words=count, longest=longest))
        context.progress(count / len(words), done=count, total=len(words), unit="words")
        context.raise_if_cancelled()

    context.phase("finalizing")
    context.log("counted", words=len(words))
    return Words(words=len(words), longest=longest)
