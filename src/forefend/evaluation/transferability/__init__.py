"""How adversarial images that are crafted on one model mislead others behind a defense."""
