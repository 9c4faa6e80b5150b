"""Says how often somebody was here."""


def greet(count, remembered):
    return f"visit {count}, remembered: {remembered}\n"
