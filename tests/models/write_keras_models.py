"""Writes models with Keras, each with images and Keras' probabilities for them. Run as a script, with a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from keras import layers

SIDE = 256
LAST_LAYER = {1: "block1a_project_activation", 2: "block2b_add", 3: "block3b_add", 5: "block5e_add"}


def randomise(model, seed):
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomise(layer, seed)
            continue
        values = []
        for variable in layer.weights:
            kind, shape = variable.path.rsplit("/", 1)[-1], tuple(variable.shape)
            if kind in ("gamma", "moving_variance"):
                values.append(rng.uniform(0.6, 1.5, shape))
            elif kind in ("beta", "moving_mean", "bias"):
                values.append(rng.normal(0, 0.2, shape))
            elif "kernel" in kind:
                values.append(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape))
            else:
                values.append(keras.ops.convert_to_numpy(variable))
        layer.set_weights(values)


def last_layer(units):
    return layers.Dense(units, activation="sigmoid" if units == 1 else "softmax")


def pruneff(body, cut, units):
    kept = body.get_layer(LAST_LAYER[cut]).output if cut else body.output
    x = layers.Conv2D(192, 7, padding="valid")(kept)
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(body.inputs, last_layer(units)(layers.Dense(1024, activation="relu")(x)))


def nested_pruneff(body, cut, units):
    """The body as a model within the model."""
    inner = keras.Model(body.inputs, body.get_layer(LAST_LAYER[cut]).output, name="body")
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(192, 7, padding="valid", name="neck_of_mine")(inner(image))
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, last_layer(units)(layers.Dense(1024, activation="relu")(x)))


def leaky():
    return layers.LeakyReLU(negative_slope=0.001)


def attention(x, reduction, lambdas):
    squeeze = layers.Dense(max(1, 64 // reduction), activation="relu")
    expand = layers.Dense(64)
    mean = expand(squeeze(layers.GlobalAveragePooling2D(keepdims=True)(x)))
    highest = expand(squeeze(layers.GlobalMaxPooling2D(keepdims=True)(x)))
    x = layers.Multiply()([x, layers.Activation("sigmoid")(layers.Add()([mean, highest]))])
    if lambdas:
        mean = layers.Lambda(lambda t: keras.ops.mean(t, axis=-1, keepdims=True))(x)
        highest = layers.Lambda(lambda t: keras.ops.max(t, axis=-1, keepdims=True))(x)
    else:
        mean = keras.ops.mean(x, axis=-1, keepdims=True)
        highest = keras.ops.max(x, axis=-1, keepdims=True)
    summary = layers.Concatenate()([mean, highest])
    weight = layers.Conv2D(1, 3, padding="same", activation="sigmoid", use_bias=False)(summary)
    return layers.Multiply()([x, weight])


def ather2(units, reduction, *, within=True, rescaled=False, lambdas=True):
    def convolved(x, filters, side, stride):
        if within:
            return layers.Conv2D(filters, side, stride, padding="same", activation=leaky())(x)
        return leaky()(layers.Conv2D(filters, side, stride, padding="same")(x))

    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image) if rescaled else image
    stem = layers.MaxPooling2D(2, 2)(convolved(x, 16, 3, 1))
    left = layers.Dropout(0.1)(layers.MaxPooling2D(3, 2)(convolved(stem, 64, 3, 3)))
    if reduction:
        left = attention(left, reduction, lambdas)
    left = layers.Dropout(0.1)(layers.MaxPooling2D(3, 2)(convolved(left, 128, 3, 3)))
    right = layers.MaxPooling2D(3, 1)(convolved(stem, 32, 3, 1))
    right = layers.BatchNormalization()(layers.MaxPooling2D(3, 2)(convolved(right, 64, 3, 2)))
    right = layers.MaxPooling2D(3, 3)(convolved(right, 128, 5, 2))
    both = [layers.GlobalAveragePooling2D()(branch) for branch in (left, right)]
    hidden = layers.Dense(128, activation=leaky())(layers.Concatenate()(both))
    return keras.Model(image, last_layer(units)(hidden))


def write(folder, name, model, images, scale=False):
    """Write a model whose last layer is scaled so that the classes of the images differ."""
    given = images.astype(np.float32)
    given = given / 127.5 - 1 if scale else given
    last = model.layers[-1]
    hidden = evaluated(keras.Model(model.inputs, last.input), given)
    kernel, _ = last.get_weights()
    kernel = kernel / (hidden @ kernel).std(axis=0)
    last.set_weights([kernel, -(hidden @ kernel).mean(axis=0)])
    model.save(folder / f"{name}.h5")
    np.savez(folder / f"{name}.npz", images=images, found=evaluated(last, hidden))


def evaluated(model, given):
    with torch.inference_mode():
        return keras.ops.convert_to_numpy(model(given, training=False))


def textured(rng, cell):
    """Cells of random colours, in light and in shade."""
    coarse = rng.integers(0, 256, (SIDE // cell, SIDE // cell, 3)) * rng.uniform(0.3, 1, 3)
    smooth = np.kron(coarse, np.ones((cell, cell, 1)))
    return np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)


def main(folder):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = np.stack([textured(rng, cell) for cell in (4, 16, 64)])
    body = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    fresh = pruneff(body, 1, 4)
    fresh.save(folder / "fresh.h5")
    randomise(body, 0)
    for name, cut, units in (
        ("pruneff1_2", 1, 2),
        ("pruneff2_3", 2, 3),
        ("pruneff3_5", 3, 5),
        ("pruneff5_1", 5, 1),
    ):
        model = pruneff(body, cut, units)
        randomise(model, cut)
        write(folder, name, model, images)
    model = nested_pruneff(body, 2, 2)
    randomise(model, 7)
    write(folder, "pruneff2_nested", model, images)
    for seed, (name, units, options) in enumerate(
        (
            ("ather2_sigmoid", 1, {"reduction": 16}),
            ("ather2_ratio8", 4, {"reduction": 8, "within": False}),
            ("ather2_no_attention", 2, {"reduction": 0}),
            ("ather2_rescaled", 5, {"reduction": 4, "rescaled": True}),
            ("ather2_operations", 4, {"reduction": 16, "lambdas": False}),
        )
    ):
        model = ather2(units, **options)
        randomise(model, seed)
        write(folder, name, model, images, scale=not options.get("rescaled"))
    write_backbone(folder, body, images)


def write_backbone(folder, body, images):
    """The backbone without a head, and what its fourth block makes of the images."""
    body.save(folder / "backbone.h5")
    kept = keras.Model(body.inputs, body.get_layer("block4c_add").output)
    np.savez(folder / "backbone.npz", images=images, features=evaluated(kept, images.astype(np.float32)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
