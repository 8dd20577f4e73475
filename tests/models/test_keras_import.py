"""A file of Keras gives Keras' probabilities, or an error that names each layer that differs; no code runs."""

from __future__ import annotations

import base64
import json
import marshal
import shutil
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from tests.models.conftest import randomise
from wsi_her2.errors import ClassifierError
from wsi_her2.models.keras_file import KerasFile, read_keras_file
from wsi_her2.models.keras_import import architecture_of, weights_from_keras, were_trained
from wsi_her2.models.networks.architecture import Architecture, named_architecture

h5py = pytest.importorskip("h5py")
torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from wsi_her2.models.networks.deployed import Deployed, build_network, for_inference, network_of  # noqa: E402

FILES = {"pruneff": "pruneff4_4class.h5", "ather2": "ather2_4class.h5"}


def imported(path, family=None):
    """The architecture of a file, and its network."""
    file = read_keras_file(path)
    architecture = architecture_of(file, family)
    network = build_network(architecture)
    state = weights_from_keras(file, architecture, network)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()}, strict=False)
    return architecture, network.eval()


def probabilities(architecture, network, images):
    with torch.inference_mode():
        return Deployed(for_inference(network), architecture.sigmoid).eval()(torch.from_numpy(images)).numpy()


# Agreement with Keras


@pytest.mark.parametrize("family", FILES)
def test_a_file_that_keras_2_wrote_gives_its_probabilities(data_dir, family):
    path = data_dir / "keras" / FILES[family]
    kept = np.load(path.with_suffix(".npz"))
    architecture, network = imported(path)
    assert architecture == named_architecture("pruneff4" if family == "pruneff" else "ather2")
    found = probabilities(architecture, network, kept["images"])
    np.testing.assert_allclose(found, kept["probabilities"], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pruneff1_2", Architecture("pruneff", 2, 256, cut=1)),
        ("pruneff2_3", Architecture("pruneff", 3, 256, cut=2)),
        ("pruneff3_5", Architecture("pruneff", 5, 256, cut=3)),
        ("pruneff5_1", Architecture("pruneff", 2, 256, cut=5, sigmoid=True)),
        ("pruneff2_nested", Architecture("pruneff", 2, 256, cut=2)),
        ("ather2_sigmoid", Architecture("ather2", 2, 256, sigmoid=True, cbam_reduction=16)),
        ("ather2_ratio8", Architecture("ather2", 4, 256, cbam_reduction=8)),
        ("ather2_no_attention", Architecture("ather2", 2, 256)),
        ("ather2_rescaled", Architecture("ather2", 5, 256, cbam_reduction=4)),
        ("ather2_operations", Architecture("ather2", 4, 256, cbam_reduction=16)),
    ],
)
def test_a_model_whose_layers_keras_named_gives_its_probabilities(keras_models, name, expected):
    kept = np.load(keras_models / f"{name}.npz")
    architecture, network = imported(keras_models / f"{name}.h5")
    assert architecture == expected
    keras = kept["found"]
    if architecture.sigmoid:
        keras = np.concatenate([1 - keras, keras], axis=1)
    assert np.ptp(keras, axis=0).max() > 0.1
    np.testing.assert_allclose(probabilities(architecture, network, kept["images"]), keras, atol=1e-4)


def test_weights_without_the_model_are_taken_too(data_dir, tmp_path):
    path = data_dir / "keras" / FILES["pruneff"]
    with h5py.File(path) as whole, h5py.File(tmp_path / "weights.h5", "w") as bare:
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", bare)
        bare.attrs["layer_names"] = whole["model_weights"].attrs["layer_names"]
    kept = np.load(path.with_suffix(".npz"))
    assert not read_keras_file(tmp_path / "weights.h5").described
    architecture, network = imported(tmp_path / "weights.h5")
    found = probabilities(architecture, network, kept["images"])
    np.testing.assert_allclose(found, kept["probabilities"], atol=1e-4)


def test_new_statistics_of_normalisations_were_never_trained(keras_models):
    file = read_keras_file(keras_models / "fresh.h5")
    architecture = architecture_of(file)
    assert not were_trained(weights_from_keras(file, architecture, build_network(architecture)))


@pytest.mark.parametrize("statistic", ["running_mean", "running_var"])
def test_one_statistic_that_moved_was_trained(statistic):
    state = {name: t.numpy() for name, t in build_network(named_architecture("ather2")).state_dict().items()}
    assert not were_trained(state)
    state[f"right_norm.{statistic}"][3] += 0.01
    assert were_trained(state)


def test_random_weights_with_new_statistics_were_never_trained():
    network = build_network(named_architecture("pruneff2"))
    randomise(network, 0)
    for module in network.modules():
        if hasattr(module, "running_mean"):
            module.reset_running_stats()
    assert not were_trained({name: tensor.numpy() for name, tensor in network.state_dict().items()})


# Files that differ


def edited(source, target, settings=None, weights=None):
    """A copy of a file with some settings of layers and some weights changed.

    `settings` is given the layers of the model by name, `weights` the group of the weights.
    """
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        if settings is not None:
            model = json.loads(file.attrs["model_config"])
            settings({layer["config"]["name"]: layer["config"] for layer in model["config"]["layers"]})
            file.attrs["model_config"] = json.dumps(model)
        if weights is not None:
            weights(file["model_weights"])
    return target


def setting(layer, **values):
    return {"settings": lambda layers: layers[layer].update(values)}


def slope(layer, value):
    return {"settings": lambda layers: layers[layer]["activation"]["config"].update(alpha=value)}


def replaced(layer, variable, change):
    def edit(group):
        parent = group[f"{layer}/{layer}"]
        changed = change(parent[f"{variable}:0"][()])
        del parent[f"{variable}:0"]
        parent[f"{variable}:0"] = changed

    return {"weights": edit}


def without(layer):
    return {"weights": lambda group: group.__delitem__(layer)}


def added(layer):
    def edit(group):
        group[f"{layer}/{layer}/kernel:0"] = np.zeros((128, 128), np.float32)

    return {"weights": edit}


def spoilt(values):
    values.flat[0] = np.nan
    return values


@pytest.mark.parametrize(
    ("family", "edit", "said"),
    [
        ("pruneff", without("block3a_project_conv"), "block3a_project_conv: has no kernel"),
        ("pruneff", without("top_conv0"), "neck: the convolution is missing"),
        ("pruneff", without("dense_11"), "out: the dense layer is missing"),
        (
            "pruneff",
            replaced("block2a_expand_conv", "kernel", lambda v: v[..., :8]),
            r"block2a_expand_conv: kernel",
        ),
        (
            "pruneff",
            replaced("top_conv0", "kernel", lambda v: v[:5, :5]),
            r"top_conv0 \(as neck\): kernel of shape",
        ),
        (
            "pruneff",
            replaced("dense_10", "bias", lambda v: v[:9]),
            r"dense_10 \(as hidden\): bias of shape \(9,\)",
        ),
        ("pruneff", replaced("stem_bn", "moving_variance", spoilt), "stem_bn: moving_variance holds"),
        ("pruneff", setting("block4a_dwconv2", strides=[1, 1]), "block4a_dwconv2: strides 1, not 2"),
        ("pruneff", setting("block4a_dwconv2", strides=[2, 1]), "block4a_dwconv2: strides"),
        ("pruneff", setting("block4a_dwconv2", padding="valid"), "block4a_dwconv2: padding valid, not same"),
        ("pruneff", setting("top_conv0", padding="same"), r"top_conv0 \(as neck\): padding same, not valid"),
        (
            "pruneff",
            setting("top_conv0", activation="relu"),
            r"top_conv0 \(as neck\): activation relu, not linear",
        ),
        ("pruneff", setting("dense_10", activation="tanh"), r"dense_10 \(as hidden\): activation tanh, not relu"),
        ("pruneff", setting("dense_11", activation="sigmoid"), r"dense_11 \(as out\): activation sigmoid"),
        ("pruneff", setting("block4a_se_reduce", activation="relu"), "block4a_se_reduce: activation relu"),
        ("pruneff", setting("stem_activation", activation="relu"), "stem_activation: activation relu, not swish"),
        ("pruneff", setting("stem_conv", dilation_rate=[2, 2]), "stem_conv: dilation_rate 2, not 1"),
        ("pruneff", setting("block4c_project_bn", epsilon=1e-5), "block4c_project_bn: epsilon 1e-05, not 0.001"),
        ("pruneff", setting("batch_normalization_5", epsilon=0.1), r"\(as neck_norm\): epsilon 0.1"),
        ("pruneff", setting("rescaling_5", scale=1.0), "Rescaling: the model does not divide"),
        ("pruneff", setting("normalization_5", mean=[0.5, 0.5, 0.5]), "Normalization: the model does not centre"),
        ("pruneff", added("dense_12"), "dense_12: is not part of pruneff4"),
        ("ather2", without("right2"), "right2: has no kernel"),
        ("ather2", replaced("left2", "kernel", lambda v: v[..., :8]), r"left2: kernel of shape \(3, 3, 64, 8\)"),
        ("ather2", replaced("stem", "bias", spoilt), "stem: bias holds values that are no numbers"),
        ("ather2", setting("left1", strides=[2, 2]), "left1: strides 2, not 3"),
        ("ather2", setting("left1", padding="valid"), "left1: padding valid, not same"),
        ("ather2", setting("cbam_spatial", padding="valid"), "cbam_spatial: padding valid, not same"),
        ("ather2", setting("cbam_mlp1", activation="gelu"), "cbam_mlp1: activation gelu, not relu"),
        ("ather2", setting("hidden", activation="relu"), "hidden: activation relu, not LeakyReLU 0.001"),
        ("ather2", setting("right1a", dilation_rate=[2, 2]), "right1a: dilation_rate 2, not 1"),
        ("ather2", slope("left1", 0.01), "left1: activation LeakyReLU 0.01, not LeakyReLU 0.001"),
        ("ather2", setting("leaky_re_lu_2", alpha=0.3), "LeakyReLU: 7 of slope 0.001 are needed"),
        ("ather2", setting("right_bn", epsilon=1e-5), "right_bn: epsilon 1e-05, not 0.001"),
        ("ather2", setting("max_pooling2d_1", pool_size=[2, 2]), "MaxPooling2D: side/stride 2/2, 2/2, 3/1"),
        ("ather2", setting("max_pooling2d_1", pool_size=[3, 2]), r"MaxPooling2D: .*\[3, 2\]/2"),
        ("ather2", setting("max_pooling2d_3", strides=[2, 2]), "MaxPooling2D"),
        ("ather2", setting("max_pooling2d_4", padding="same"), "max_pooling2d_4: padding same, not valid"),
        ("ather2", added("dense_9"), "dense_9: is not part of ather2"),
    ],
)
def test_what_differs_from_the_published_network_is_named_by_its_layer(data_dir, tmp_path, family, edit, said):
    path = edited(data_dir / "keras" / FILES[family], tmp_path / "mine.h5", **edit)
    with pytest.raises(ClassifierError, match=rf"(?s)mine\.h5.*{said}"):
        imported(path)


def test_a_layer_that_is_not_in_the_model_is_missing(data_dir, tmp_path):
    def edit(file):
        model = json.loads(file.attrs["model_config"])
        layers = model["config"]["layers"]
        layers[:] = [layer for layer in layers if layer["config"]["name"] != "block2b_expand_conv"]
        file.attrs["model_config"] = json.dumps(model)
        del file["model_weights/block2b_expand_conv"]

    shutil.copyfile(data_dir / "keras" / FILES["pruneff"], tmp_path / "mine.h5")
    with h5py.File(tmp_path / "mine.h5", "r+") as file:
        edit(file)
    with pytest.raises(ClassifierError, match="block2b_expand_conv: the convolution is missing"):
        imported(tmp_path / "mine.h5")


def test_many_differences_are_shown_in_part_and_counted(data_dir):
    with pytest.raises(ClassifierError, match=r"stem_conv: the convolution is missing(?s:.*)and \d+ more$"):
        imported(data_dir / "keras" / FILES["ather2"], "pruneff")


def test_a_file_of_the_other_family_is_refused_layer_by_layer(data_dir):
    with pytest.raises(ClassifierError, match=r"(?s)not ather2 as published.*stem"):
        imported(data_dir / "keras" / FILES["pruneff"], "ather2")


@pytest.mark.parametrize(
    ("cut", "said"),
    [(3, "block4a_expand_conv: is not part of pruneff3"), (5, "block5a_expand_conv: the convolution is missing")],
)
def test_a_wrong_cut_is_named_by_the_layers_that_are_too_many_or_too_few(data_dir, cut, said):
    file = read_keras_file(data_dir / "keras" / FILES["pruneff"])
    architecture = replace(architecture_of(file), cut=cut)
    with pytest.raises(ClassifierError, match=said):
        weights_from_keras(file, architecture, build_network(architecture))


def test_a_model_that_is_neither_network_says_with_what_it_begins(tmp_path):
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file["model_weights/block1_conv1/block1_conv1/kernel:0"] = np.zeros((3, 3, 3, 64), np.float32)
    with pytest.raises(ClassifierError, match=r"neither PrunEff nor ATHER2.*block1_conv1"):
        imported(tmp_path / "vgg.h5")


def test_an_input_that_is_no_square_image_is_refused(data_dir, tmp_path):
    for shape in ([None, 224, 256, 3], [None, 224, 224, 1], [None, 224]):
        edit = setting("input_6", batch_input_shape=shape)
        path = edited(data_dir / "keras" / FILES["pruneff"], tmp_path / "mine.h5", **edit)
        with pytest.raises(ClassifierError, match="no square RGB image"):
            imported(path)


@pytest.mark.parametrize("family", FILES)
def test_settings_of_any_form_are_taken_or_named_and_never_a_crash(data_dir, family):
    file = read_keras_file(data_dir / "keras" / FILES[family])
    architecture = architecture_of(file)
    network = build_network(architecture)
    kinds = {layer.kind: layer for layer in file.layers}
    odd = (None, "odd", [], [[]], {}, {"class_name": 3}, {"class_name": "LeakyReLU", "config": {"alpha": "x"}}, -1)
    refused = 0
    for layer in kinds.values():
        for name in layer.settings:
            for value in odd:
                changed = replace(layer, settings=layer.settings | {name: value})
                layers = tuple(changed if other is layer else other for other in file.layers)
                spoiled = KerasFile(file.path, layers, file.described)
                try:
                    weights_from_keras(spoiled, architecture_of(spoiled), network)
                except ClassifierError:
                    refused += 1
            bare = {key: value for key, value in layer.settings.items() if key != name}
            layers = tuple(replace(layer, settings=bare) if o is layer else o for o in file.layers)
            spoiled = KerasFile(file.path, layers, file.described)
            try:
                weights_from_keras(spoiled, architecture_of(spoiled), network)
            except ClassifierError:
                refused += 1
    assert refused > 20


# Files that are hostile or damaged


@pytest.fixture
def small_file(tmp_path):
    """ATHER2 without attention as a file that holds weights only, written without Keras."""
    network = build_network(named_architecture("ather2", cbam=False))
    randomise(network, 0)
    with h5py.File(tmp_path / "small.h5", "w") as file:
        for name, module in network.named_modules():
            keras = {"right_norm": "right_bn"}.get(name, name)
            place = f"model_weights/{keras}/{keras}"
            if isinstance(module, torch.nn.Conv2d):
                file[f"{place}/kernel:0"] = module.weight.detach().numpy().transpose(2, 3, 1, 0)
                file[f"{place}/bias:0"] = module.bias.detach().numpy()
            elif isinstance(module, torch.nn.Linear):
                file[f"{place}/kernel:0"] = module.weight.detach().numpy().T
                file[f"{place}/bias:0"] = module.bias.detach().numpy()
            elif name == "right_norm":
                file[f"{place}/gamma:0"] = module.weight.detach().numpy()
                file[f"{place}/beta:0"] = module.bias.detach().numpy()
                file[f"{place}/moving_mean:0"] = module.running_mean.numpy()
                file[f"{place}/moving_variance:0"] = module.running_var.numpy()
    return tmp_path / "small.h5"


def test_the_small_file_imports_as_it_is(small_file):
    assert imported(small_file)[0] == named_architecture("ather2", cbam=False)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"no model", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_hdf5_is_a_classifier_error(tmp_path, content):
    (tmp_path / "wrong.h5").write_bytes(content)
    with pytest.raises(ClassifierError, match=r"wrong\.h5: not a Keras file in HDF5"):
        read_keras_file(tmp_path / "wrong.h5")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "absent.h5", tmp_path):
        with pytest.raises(ClassifierError, match="no such file"):
            read_keras_file(path)


@pytest.mark.parametrize("kept", [0.999, 0.9, 0.5, 0.1, 0.01])
def test_a_truncated_file_is_a_classifier_error(small_file, kept):
    content = small_file.read_bytes()
    small_file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ClassifierError, match=r"small\.h5"):
        imported(small_file)


def test_bytes_that_flipped_anywhere_are_no_other_error(small_file):
    content = small_file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        spoiled = bytearray(content)
        for place in rng.integers(0, min(len(content), 16_000), 3):
            spoiled[place] ^= 1 << int(rng.integers(0, 8))
        small_file.write_bytes(spoiled)
        with suppress(ClassifierError):  # any other error fails
            imported(small_file)


def test_weights_that_are_no_group_of_layers_are_refused(tmp_path):
    with h5py.File(tmp_path / "wrong.h5", "w") as file:
        file["model_weights"] = np.zeros(3, np.float32)
    with pytest.raises(ClassifierError, match=r"wrong\.h5"):
        read_keras_file(tmp_path / "wrong.h5")


def test_a_file_without_weights_says_so(tmp_path):
    with h5py.File(tmp_path / "nothing.h5", "w") as file:
        file.create_group("model_weights/stem")
    with pytest.raises(ClassifierError, match="no weights"):
        read_keras_file(tmp_path / "nothing.h5")


def moved_away(small_file, place):
    """The same file with what lies at a place taken to another file; returns that one."""
    other = small_file.with_name("other.h5")
    with h5py.File(small_file, "r+") as file, h5py.File(other, "w") as away:
        file.copy(place, away, name="here")
        del file[place]
    return other


@pytest.mark.parametrize("place", ["model_weights/left1/left1/kernel:0", "model_weights/left1", "model_weights"])
def test_a_link_to_another_file_is_not_followed(small_file, place):
    other = moved_away(small_file, place)
    with h5py.File(small_file, "r+") as file:
        file[place] = h5py.ExternalLink(other.name, "/here")
        assert isinstance(file[place], h5py.Group | h5py.Dataset)  # it could be followed
    with pytest.raises(ClassifierError, match=r"small\.h5"):
        imported(small_file)


def test_weights_that_are_stored_in_another_file_are_refused(small_file, tmp_path):
    place = "model_weights/left1/left1/kernel:0"
    with h5py.File(small_file, "r+") as file:
        values = file[place][()]
        del file[place]
        (tmp_path / "raw").write_bytes(values.tobytes())
        outside = [(str(tmp_path / "raw"), 0, values.nbytes)]
        file.create_dataset(place, values.shape, values.dtype, external=outside)
    with pytest.raises(ClassifierError, match=r"left1/left1/kernel:0 lie in another file"):
        read_keras_file(small_file)


def test_weights_that_are_a_view_of_another_file_are_refused(small_file):
    place = "model_weights/left1/left1/kernel:0"
    other = moved_away(small_file, place)
    with h5py.File(small_file, "r+") as file:
        layout = h5py.VirtualLayout((3, 3, 16, 64), np.float32)
        layout[:] = h5py.VirtualSource(other, "here", shape=(3, 3, 16, 64))
        file.create_virtual_dataset(place, layout)
    with pytest.raises(ClassifierError, match=r"left1/left1/kernel:0 lie in another file"):
        read_keras_file(small_file)


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_links_in_a_circle_end(small_file, hard):
    with h5py.File(small_file, "r+") as file:
        group = file["model_weights"]
        group["left1/loop"] = group if hard else h5py.SoftLink("/model_weights")
        group["self"] = h5py.SoftLink("/model_weights/self")
    assert imported(small_file)[0] == named_architecture("ather2", cbam=False)


@pytest.mark.parametrize("shape", [(2**20, 2**20), (2**31, 2**31), (2**14, 2**15)])
def test_weights_that_claim_to_be_huge_are_refused_before_they_are_read(small_file, shape):
    with h5py.File(small_file, "r+") as file:
        file.create_dataset("model_weights/extra/extra/kernel:0", shape, np.float32, chunks=(64, 64))
    with pytest.raises(ClassifierError, match="more than 268,435,456 bytes"):
        read_keras_file(small_file)


def test_code_that_is_stored_in_a_file_is_never_run(data_dir, tmp_path):
    marker = tmp_path / "executed"
    source = f"lambda x: open({str(marker)!r}, 'w').close()"
    function = eval(source)
    function(None)
    assert marker.exists()
    marker.unlink()
    stored = base64.encodebytes(marshal.dumps(function.__code__)).decode()

    def edit(layers):
        for layer in (layers["lambda"], layers["lambda_1"]):
            layer["function"] = [stored, None, None]

    path = edited(data_dir / "keras" / FILES["ather2"], tmp_path / "mine.h5", settings=edit)
    architecture, network = imported(path)
    kept = np.load((data_dir / "keras" / FILES["ather2"]).with_suffix(".npz"))
    found = probabilities(architecture, network, kept["images"][:2])
    np.testing.assert_allclose(found, kept["probabilities"][:2], atol=1e-4)
    assert not marker.exists()


@pytest.mark.parametrize(
    "model",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        '"text"',
        "{}",
        '{"config": null}',
        '{"config": {"layers": null}}',
        '{"config": {"layers": 3}}',
        '{"config": {"layers": [null]}}',
        '{"config": {"layers": [{}]}}',
        '{"config": {"layers": [{"class_name": "Conv2D", "config": null}]}}',
        '{"config": {"layers": [{"class_name": "Conv2D", "config": {}}]}}',
        '{"config": {"layers": [{"class_name": "Conv2D", "config": "text"}]}}',
        '{"config": {"layers": [{"class_name": "Conv2D", "config": ["name"]}]}}',
        '{"config": {"layers": [{"class_name": "Conv2D", "config": {"name": ["stem"]}}]}}',
        '{"config": {"layers": [{"class_name": "Conv2D", "config": {"name": {}}}]}}',
        '{"config": {"layers": [{"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [[1]]}}]}}',
        '{"config": {"layers": [{"class_name": "InputLayer", "config": '
        '{"name": "i", "batch_shape": [null, "a", "a", 3]}}]}}',
        '{"a":' * 50_000 + "1" + "}" * 50_000,
    ],
    ids=lambda text: text[:70],
)
def test_a_description_of_any_form_is_a_classifier_error(small_file, model):
    with h5py.File(small_file, "r+") as file:
        file.attrs["model_config"] = model
    with pytest.raises(ClassifierError, match=r"small\.h5"):
        imported(small_file)


def test_the_network_of_a_file_is_the_network_of_its_weights(small_file):
    architecture, network = imported(small_file)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    images = np.zeros((1, 512, 512, 3), np.uint8)
    again = network_of(architecture, weights)
    np.testing.assert_array_equal(
        probabilities(architecture, again, images), probabilities(architecture, network, images)
    )
