"""Side by side with the peers, in one run: speed, error at equal steps, same codes from the same files.

`peers` builds their environment, `training`, `collection` and `fairness` hold the contenders, `checks` the
comparisons of values, `worker` is the process that one contender runs in, `rows` makes the table out of the
measurements.
"""
