"""Networks: classifiers, preprocessors, discriminators, guides and defenses."""
