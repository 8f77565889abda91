"""Walks past seasons deadline by deadline and holds forecasts against what happened. Command: `phaseline fpl backtest`."""
