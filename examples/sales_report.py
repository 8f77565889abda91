"""A pandas job: sales grouped by shop and month. What pandas needs is imported in the child process only."""

from typing import Any

from pydantic import BaseModel, Field

from phaseline import Context, InvalidParams, engine

PHASES = {"reading": 40, "grouping": 80, "reporting": 100}


class Sales(BaseModel):
    """Where the sales are: CSV with the columns `shop`, `day` (2026-11-24) and `amount`."""

    csv: str = Field(description="the table itself; a URL or an object's key would be kinder to the log")


class Report(BaseModel):
    """What was sold."""

    rows: int
    by_shop: dict[str, float]
    best_month: str


def check(params: Sales) -> None:
    """Refused at submit, before anything is queued."""
    if missing := {"shop", "day", "amount"} - set(params.csv.partition("\n")[0].strip().split(",")):
        raise InvalidParams((("csv",), f"has no column {', '.join(sorted(missing))}"))


@engine("sales_report", version=1, phases=PHASES, check=check)
def sales_report(params: Sales, context: Context) -> Report:
    """Adds up sales by shop and month."""
    import io

    import pandas as pd

    def read() -> list[dict[str, Any]]:
        table = pd.read_csv(io.StringIO(params.csv), parse_dates=["day"])
        table["month"] = table["day"].dt.strftime("%Y-%m")
        monthly = table.groupby(["shop", "month"], as_index=False).agg(
            amount=("amount", "sum"), rows=("amount", "size")
        )
        records: list[dict[str, Any]] = monthly.to_dict("records")
        return records

    # A table is no JSON, its records are: they are the checkpoint, and another attempt does not read again.
    monthly = pd.DataFrame(context.phase("reading", read))

    context.phase("grouping")
    by_shop: dict[str, float] = {}
    for count, (shop, rows) in enumerate(monthly.groupby("shop"), start=1):
        by_shop[str(shop)] = round(float(rows["amount"].sum()), 2)
        context.partial("shop", {"shop": shop, "amount": by_shop[str(shop)]})
        context.progress(count / monthly["shop"].nunique(), done=count, unit="shops")

    context.phase("reporting")
    months = monthly.groupby("month")["amount"].sum()
    return Report(rows=int(monthly["rows"].sum()), by_shop=by_shop, best_month=str(months.idxmax()))
