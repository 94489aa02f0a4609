"""Istio's Bookinfo, told anew: a product page that calls details and reviews, of which two versions call ratings."""
