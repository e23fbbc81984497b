"""The commands that make the bundled texts, studies and weights. No page imports them."""
