"""Says things with emphasis."""


def emphasise(text):
    return text.upper()
