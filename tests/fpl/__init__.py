"""Tests of the engine `fpl`. Real league data is no part of the repository: set PHASELINE_FPL_DATA to a folder of
saved responses (`2023-24-gw10`, `2023-24-gw26`, …, each with a MANIFEST.json naming an entry) to run the checks below.
"""

# What test_real_data.py checks; the summary of a run without the data lists them.
REAL_DATA_CHECKS = (
    "the bank of a real manager is derived again in every past gameweek",
    "his hits are derived again in every past gameweek",
    "his sold players fetched what the selling rule says",
    "the decision on each saved gameweek is within the rules",
    "projections of a saved gameweek order players better than the API's own",
)
