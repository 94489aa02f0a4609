"""The rules of the kinds, as Istio's validator has them.  One file a kind; `parts` checks a kind or a part of one alone."""
