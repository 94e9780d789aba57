"""Competition bundles: written from a data set, and read whoever wrote them."""
