"""How near samples are to data, on arrays, without a downloaded network: each number with an interval and its source."""
