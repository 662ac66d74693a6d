"""forefend: one removable network in front of frozen image classifiers, trained adversarially, measured honestly."""
