"""Which models this server offers: their identifiers, their limits and the engines that run them."""
