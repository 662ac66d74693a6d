"""Protect a classifier that may not be retrained, and measure what the protection is worth.

python examples/protect_a_classifier.py      (a minute on two cores)
"""

import torch

import forefend as ff

torch.manual_seed(0)
train, test = ff.data.load("digits", "train"), ff.data.load("digits", "test")

# A classifier that somebody trained, and whose weights are signed off: images in [0, 1] in, logits out.
classifier = ff.classifiers.build("cnn", channels=1, classes=10, size=8)
ff.fit(ff.recipes.Natural(epochs=8), train, ff.Networks(classifier=classifier))
before = ff.fingerprint(classifier)

# One network in front of it, trained against attacks on the two together.
preprocessor = ff.preprocessors.narrow_unet(channels=1)
recipe = ff.recipes.RTFE(threat=ff.Linf(0.2), steps=3, relative_step=0.5, epochs=15, lr=0.3)
networks = ff.Networks(preprocessor, guides=[ff.Guide(classifier)])
defense = ff.fit(recipe, train, networks)  # defense.save(folder), then ff.load(folder) or `forefend evaluate folder`

# The pair is a plain module. White-box PGD attacks the whole of it.
safe = ff.Defended(defense, classifier)
suite = ff.suites.curve([ff.Linf(0.1), ff.Linf(0.15)])
models = [ff.EvaluatedModel("cnn", classifier, seen=True), ff.EvaluatedModel("cnn", safe, defended=True, seen=True)]
print(ff.evaluate(models, test, suite))
assert ff.fingerprint(classifier) == before
