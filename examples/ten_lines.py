"""An engine in ten lines."""

from pydantic import BaseModel

from phaseline import Context, engine


class Params(BaseModel):
    name: str = "world"


@engine("greet", version=1, phases={"greeting": 100})
def greet(params: Params, context: Context) -> str:
    context.phase("greeting")
    return f"Hello, {params.name}!"
