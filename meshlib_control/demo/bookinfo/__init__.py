"""Istio's Bookinfo, told anew: a product page that calls details and reviews, of which two versions call ratings.

Importing it has the services say in their logs who they are and whom they refuse.
"""

import logging

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("meshlib").setLevel(logging.INFO)
