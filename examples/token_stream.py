"""Tokens of a language model as partial results. The model here is made up; put your client's stream in its place."""

import asyncio
import time
from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from phaseline import Context, engine

SAID_EACH_S = 0.1  # viewers read in words, and each partial is an event for ever: not one a token


class Prompt(BaseModel):
    """What to answer."""

    prompt: str = Field(min_length=1)
    words: int = Field(60, ge=1, le=10_000)


class Answer(BaseModel):
    """What was answered."""

    text: str
    tokens: int


async def stream(params: Prompt) -> AsyncIterator[str]:
    """Stands for a model."""
    vocabulary = params.prompt.split()
    for place in range(params.words):
        await asyncio.sleep(0.01)
        yield vocabulary[place % len(vocabulary)] + " "


@engine("answer", version=1, phases={"answering": 100})
async def answer(params: Prompt, context: Context) -> Answer:
    """Answers a prompt, word by word."""
    context.phase("answering")
    text, said, tokens, at = "", 0, 0, time.monotonic()
    async for token in stream(params):
        text += token
        tokens += 1
        if time.monotonic() - at >= SAID_EACH_S:
            # Only what is new: a viewer puts the parts together, whoever comes later gets them all.
            context.partial("text", text[said:])
            context.progress(tokens / params.words, done=tokens, unit="tokens")
            context.best(Answer(text=text, tokens=tokens))  # kept if the job is cancelled
            said, at = len(text), time.monotonic()
        context.raise_if_cancelled()
    context.partial("text", text[said:])
    return Answer(text=text, tokens=tokens)
