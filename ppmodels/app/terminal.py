"""Texts of others, shown on a terminal."""


def printable(text: object) -> str:
    """The text with its control and invisible characters escaped, on one line.

    A name in another's run could move the cursor, hide what follows or add a line that looks like ours.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text))
