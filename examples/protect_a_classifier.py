"""Protect a classifier that may not be retrained, and measure what the protection is worth.

python examples/protect_a_classifier.py      (a minute on two cores)
"""

import torch

import forefend as ff

torch.manual_seed(0)
train, test = ff.data.load("digits", "train"), ff.data.load("digits", "test")

# A trained classifier whose weights must not change: images in [0, 1] in, logits out.
classifier = ff.classifiers.build("cnn", channels=1, classes=10, size=8)
ff.fit(ff.recipes.Natural(epochs=8), train, ff.Networks(classifier=classifier))
before = ff.fingerprint(classifier)

# A preprocessor in front of it, trained against attacks on the two together.
recipe = ff.recipes.RTFE(threat=ff.Linf(0.2), steps=3, relative_step=0.5, epochs=15, lr=0.3)
defense = ff.fit(recipe, train, ff.Networks(ff.preprocessors.narrow_unet(channels=1), guides=[classifier]))

# White-box attacks on the classifier alone, then on the whole pipeline.
for model in (classifier, ff.Defended(defense, classifier)):
    print(ff.evaluate(model, test, suite="curve", threat=["Linf:0.1", "Linf:0.15"]))
assert ff.fingerprint(classifier) == before
