"""Tests of the engine `fpl`. Real league data is no part of the repository: set PHASELINE_FPL_DATA to a folder of
saved responses (`2023-24-gw10`, `2023-24-gw26`, …, each with a MANIFEST.json naming an entry) to run the checks below.
"""

# What the test_real_….py check; the summary of a run without the data lists them.
REAL_DATA_CHECKS = (
    "the points of every player in every match of four seasons follow the scoring table",
    "bank, hits, transfers and points of a real manager are derived again in all 38 gameweeks of four seasons",
    "the substitutions and captains the game made in them are made again",
    "his sold players fetched what the selling rule says",
    "the replay certificate of a real manager in mid-season is without a mismatch",
    "the decision on each saved gameweek is within the rules",
    "the made-up season has every field of a saved gameweek, as text where that has text",
    "projections of a saved gameweek order players better than the API's own",
    "forecasts of seasons they were not fitted on beat the API's own and are calibrated (slow)",
    "who plays is told as well as asked in seasons of five substitutes (slow)",
    "the calibration shipped is that of such forecasts (slow)",
)
