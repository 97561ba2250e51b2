"""The only room that knows Ray: thin remote wrappers round plain classes, and the loop that drives them."""
