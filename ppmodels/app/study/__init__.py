"""`study`: models of the three families on the same data, trained with several seeds, measured on one scale, reported."""
