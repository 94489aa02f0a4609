"""The order of mechanisms, written once, as generators that yield commands and receive outcomes."""
