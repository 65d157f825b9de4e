"""Lists of words, articles and capitals."""


def word_list(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


def with_article(noun: str) -> str:
    """Return a noun with `a` or `an` before it."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def capitalised(text: str) -> str:
    """Return a text with its first letter as a capital, the others as they are."""
    return text[0].upper() + text[1:]
