"""Sources of classifiers: one file for each form in which a classifier is given."""
