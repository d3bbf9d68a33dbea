"""Numbers for log p(x): estimators that say what they are, and the evaluation of a data set."""
