"""Scoring rules, one module each, in three functions; see `forecast_error` for the shortest.

    statistics(prediction, reference, options) -> (row, statistic) float64
        arrays by name of one test set. The rows of one call can be added: a score follows from
        their sum, so that rows drawn again make the score of other rows. Raises ValueError in a
        participant's words for names, shapes, dtypes or values that cannot be scored; what is wrong
        with the organiser's side begins with "the reference".
    columns(totals, options) -> {column key: score}
        from the summed statistics by set name, columns in order. A score that is not defined, such
        as a ratio to the variance of a constant, is NaN; a missing set is a ValueError.
    by_row(statistics, options) -> (label, values)
        what to draw for each row: its own error or score, and what that is called.

`options` is JSON; `options["sets"]`, where given, holds the names of the sets in order. Scoring
programs carry a verbatim copy of one module as rule.py: each needs numpy alone, Python 3.10, and
nothing from its neighbours.
"""
