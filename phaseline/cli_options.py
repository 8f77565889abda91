"""What several commands share: options, the texts of their help, exit codes, and how a failure becomes one."""

import asyncio
import contextlib
import errno
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import click
from pydantic import ValidationError
from typing_extensions import override

from events.errors import PhaselineError
from phaseline.client_errors import ClientError, NotReachable, TimedOut
from phaseline.plain import plain

if TYPE_CHECKING:
    from phaseline.client import Client
    from phaseline.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8000"
OK, ERROR, FAILED, CANCELLED, TIMEOUT, UNREAD, INTERRUPTED = 0, 1, 3, 4, 5, 6, 130  # 2, usage, is click's own
EXIT_CODES = """\b
Exit codes:
  0    done; when following: the job completed
  1    error: no server, refused, not found; nothing was changed
  2    usage: the command line is wrong
  3    the job failed
  4    the job was cancelled
  5    --timeout passed; the job goes on
  130  stopped with Ctrl-C; the job goes on
"""

QUERY_HELP = """\b
QUERY is what the query box of the pages takes, in one argument or several:
  status:failed,cancelled   of any of these
  engine:fpl                of this engine
  tag:weekly                with this tag; several: with all of them
  created_after:1h          made within; or after a time, 2026-11-24T08:00:00Z
  rerun_of:JOB              made from this job
"""


def closing(*examples: str, codes: str = EXIT_CODES) -> str:
    """What ends a command's help: examples, each a line, and the exit codes."""
    heading = "Example" if len(examples) == 1 else "Examples"
    shown = "".join(f"  {example}\n" for example in examples)
    return f"\b\n{heading}:\n{shown}\n{codes}"


Shape = Literal["table", "json", "jsonl"]
_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


def _keep_api_key(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_API_KEY] = value


_API_KEY = "phaseline.api_key"
api_key_option = click.option(
    "--api-key",
    envvar="PHASELINE_KEY",
    show_envvar=True,
    expose_value=False,
    callback=_keep_api_key,
    help="API key, where the server asks for one; others on this machine see options, so rather the variable.",
)
shape_option = click.option(
    "-o",
    "--output",
    "shape",
    type=click.Choice(["table", "json", "jsonl"]),
    default="table",
    show_default=True,
    help="table for people; json: one document; jsonl: one object a line.",
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop watching after this long.",
)
follow_option = click.option("--follow", is_flag=True, help="Watch the job until it ends; the exit code says how.")

key_option = click.option(
    "--key", help="Idempotency key: the same key and request give the same job, however often sent."
)


class Failure(click.ClickException):
    """Ends the command with a message on stderr."""

    exit_code = ERROR

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


class OutOfTime(Failure):
    """Ends the command because `--timeout` passed."""

    exit_code = TIMEOUT


class FrontDoor(click.Group):
    """The command group that turns what can go wrong into messages and exit codes, in one place."""

    @override
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NotReachable as failure:
            advice = "Start one with `phaseline up`, or say where it is with --url or PHASELINE_URL."
            raise Failure(f"{failure}\n{advice}") from failure
        except TimedOut as failure:
            raise OutOfTime(str(failure)) from failure
        except (ClientError, PhaselineError) as failure:
            raise Failure(str(failure)) from failure
        except OSError as failure:
            if failure.errno == errno.EPIPE:  # the reader of the pipe left: click ends quietly
                raise
            raise Failure(str(failure)) from failure
        except ExceptionGroup as group:
            # What breaks beside a server's other tasks arrives wrapped.
            cause = _first(group)
            if isinstance(cause, ClientError | PhaselineError | OSError):
                raise Failure(str(cause)) from group
            raise
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(INTERRUPTED)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def both(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Several options as one decorator, in the order help shows them."""

    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


url_option = both(
    click.option(
        "--url",
        envvar="PHASELINE_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="Where the server is.",
    ),
    api_key_option,
)
server_options = both(shape_option, url_option)
params_options = both(
    click.option("-p", "pairs", multiple=True, metavar="KEY=VALUE", help="One param; VALUE is JSON, else a string."),
    click.option("--params", metavar="JSON|@FILE|-", help="All params as a JSON object, from a file or from stdin."),
)


concurrency_options = both(
    click.option(
        "--concurrency-key", metavar="WORD", help="Of jobs with this key only so many run at once, others wait."
    ),
    click.option("--concurrency-limit", type=click.IntRange(1, 10_000), help="How many; default 1."),
)


def concurrency_of(given: dict[str, Any]) -> tuple[str, int] | None:
    """The key and its limit, taken out of a command's options."""
    key, limit = given.pop("concurrency_key"), given.pop("concurrency_limit")
    if key is None and limit is not None:
        raise click.UsageError("--concurrency-limit says nothing without --concurrency-key")
    return None if key is None else (key, limit or 1)


def talk(url: str, work: "Callable[[Client], Coroutine[Any, Any, _T]]") -> _T:
    """Runs `work` with a client of the server at `url`."""
    from phaseline.client import Client

    async def talking() -> _T:
        async with Client(url, token=api_key()) as client:
            return await work(client)

    return asyncio.run(talking())


def api_key() -> str | None:
    """The API key this command was given."""
    key: str | None = click.get_current_context().meta.get(_API_KEY)
    return key


def show(shape: Shape, value: Any, table: Callable[[Any], None]) -> None:
    """Prints one object, or a list of them, in the shape asked for."""
    if shape == "table":
        table(value)
    elif shape == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        for item in value if isinstance(value, list) else [value]:
            click.echo(json.dumps(item, ensure_ascii=False, separators=(",", ":")))


def exit_with(code: int) -> NoReturn:
    """Ends the command with this exit code."""
    click.get_current_context().exit(code)


def refuse_lonely_timeout(*, follow: bool, timeout_s: float | None) -> None:
    """`--timeout` says how long to watch: without `--follow` it would promise what nothing keeps."""
    if timeout_s is not None and not follow:
        raise click.UsageError(
            "--timeout is how long to watch and needs --follow; a job's own limit is --total-timeout"
        )


def settings_of(given: dict[str, Any]) -> "Settings":
    """The settings of the environment with these over them. A wrong one is a usage error that names its variable."""
    from phaseline.settings import Settings

    make: Callable[..., Settings] = Settings
    try:
        return make(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as problem:
        lines = [f"PHASELINE_{str(error['loc'][0]).upper()}: {error['msg']}" for error in problem.errors()]
        raise click.UsageError("\n".join(lines)) from problem


def params_of(pairs: tuple[str, ...], text: str | None) -> dict[str, Any] | None:
    """The params of `--params` with those of `-p` over them, None when neither is given."""
    if text is None and not pairs:
        return None
    params = _object(text) if text is not None else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.UsageError(f"-p {pair}: write it as key=value")
        params[name] = _value(value)
    return params


def program() -> str:
    """How this program was called, as a person would type it again."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return shlex.join([_shorter(sys.executable), "-m", "phaseline"])
    found = shutil.which(called.name)
    if found is not None and Path(found).resolve() == called.resolve():
        return called.name
    return shlex.quote(_shorter(sys.argv[0]))


def command(*words: str, url: str = DEFAULT_URL) -> str:
    """A command line to print for copying."""
    return " ".join([program(), shlex.join([*words, *([] if url == DEFAULT_URL else ["--url", url])])])


def _shorter(path: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _object(source: str) -> dict[str, Any]:
    text = _read(source)
    try:
        value = json.loads(text)
    except ValueError as problem:
        raise click.UsageError(f"--params is no JSON: {problem}") from problem
    if not isinstance(value, dict):
        raise click.UsageError('--params must be a JSON object such as {"name": 1}')
    return value


def _read(source: str) -> str:
    try:
        if source == "-":
            text: str = sys.stdin.read()
            return text
        if source.startswith("@"):
            return Path(source[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise click.UsageError(f"--params {source}: {problem}") from problem
    return source


def styled(text: str, **style: Any) -> str:
    """Coloured for a person who wants it so (https://no-color.org)."""
    return click.style(text, **style) if is_terminal() and not os.environ.get("NO_COLOR") else text


def is_terminal() -> bool:
    """Whether a person watches stdout; then colours and moving displays are welcome."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
