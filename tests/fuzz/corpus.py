"""Seeds of every kind of input, and how one of them becomes a hostile file."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import crafted
from tests.fuzz.crafted_models import BUNDLES, KERAS, GraphMutation, resigned
from tests.fuzz.images import DEFLATE, LZW, aperio, hamamatsu, pyramid, tissue
from tests.fuzz.mutations import as_json, damaged_bytes, damaged_slide, damaged_tree

_LARGEST_SEED = 4_000_000
"""Bytes of a real slide that is used as a seed."""

SHARES = {
    "slide": 60,
    "regions": 7,
    "config": 7,
    "keras": 7,
    "model": 8,
    "lab": 3,
    "table": 4,
    "dataset": 3,
    "store": 1,
}
"""Of the inputs, percent of each kind."""


@dataclass(frozen=True)
class Seed:
    """What an input is made of.

    Attributes
    ----------
    kind, name : str
    make : callable
        Writes a damaged copy: given a folder to write in and a source of chance, returns the path to use.
    """

    kind: str
    name: str
    make: Callable[[Path, random.Random], Path]


def corpus(folder: Path) -> dict[str, list[Seed]]:
    """Seeds by kind; what takes time to make is kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [
        *_slides(folder),
        *_texts(),
        *_keras(folder),
        *_models(folder),
        *_datasets(folder),
        *_stores(folder),
    ]
    return {kind: [seed for seed in seeds if seed.kind == kind] for kind in SHARES}


def _slides(folder: Path) -> list[Seed]:
    plain = {
        "jpeg.tif": pyramid(),
        "deflate.tif": pyramid(DEFLATE),
        "lzw.tif": pyramid(LZW),
        "raw.tif": pyramid(1),
        "big.tif": pyramid(big=True),
        "motorola.tif": pyramid(order=">"),
        "aperio.svs": aperio(),
        "hamamatsu.ndpi": hamamatsu(),
        "phantom.tif": _phantom(folder),
    }
    seeds = [Seed("slide", name, _from_bytes(data, name, damaged_slide)) for name, data in plain.items()]
    for path in _real_slides():
        seeds.append(Seed("slide", f"real {path.name}", _from_file(path)))
    for name, build in crafted.SLIDES.items():
        seeds.append(Seed("slide", f"crafted {name}", _crafted(name, build)))
    return seeds


def _phantom(folder: Path) -> bytes:
    from wsi_her2.phantom import PhantomSpec, render_phantom

    path = folder / "phantom.tif"
    if not path.exists():
        render_phantom(PhantomSpec(width_mm=0.3, height_mm=0.3, mpp=0.5, seed=3), path)
    return path.read_bytes()


def _real_slides() -> list[Path]:
    data = os.environ.get("WSI_HER2_TEST_DATA")
    if not data:
        return []
    files = [path for path in sorted((Path(data) / "slides").rglob("*")) if path.is_file()]
    return [path for path in files if path.stat().st_size <= _LARGEST_SEED]


def _from_bytes(data: bytes, name: str, damage: Callable[[bytes, random.Random], bytes]) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        path = folder / name
        path.write_bytes(damage(data, rng))
        return path

    return make


def _from_file(source: Path) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        path = folder / source.name
        path.write_bytes(damaged_slide(source.read_bytes(), rng))
        return path

    return make


def _crafted(name: str, build: Callable[[], bytes]) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        path = folder / f"{name}.tif"
        data = build()
        path.write_bytes(damaged_slide(data, rng) if rng.random() < 0.4 else data)
        return path

    return make


# Texts


def _texts() -> list[Seed]:
    regions = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": kind, "coordinates": rings},
                "properties": {"name": "tumour", "classification": {"name": "Tumor", "color": [1, 2, 3]}},
            }
            for kind, rings in (
                (
                    "Polygon",
                    [[[100, 100], [400, 100], [400, 400], [100, 100]], [[200, 150], [250, 150], [250, 180]]],
                ),
                ("MultiPolygon", [[[[10, 10], [40, 10], [40, 40]]], [[[60, 60], [90, 60], [90, 95]]]]),
                ("Point", [1, 2]),
            )
        ],
    }
    coefficients = json.loads((resources.files("wsi_her2.models.membrane") / "coefficients.json").read_text())
    trees = (
        ("regions", "regions.geojson", regions),
        ("lab", "lab.json", _LAB),
        ("model", "coefficients.json", coefficients),
    )
    seeds = [Seed(kind, name, _from_tree(name, tree)) for kind, name, tree in trees]
    for number, text in enumerate(REGIONS):
        seeds.append(Seed("regions", f"crafted {number}", _fixed(f"{number}.geojson", text)))
    for number, text in enumerate(LABS):
        seeds.append(Seed("lab", f"crafted {number}", _fixed(f"{number}.json", text)))
    presets = Path(__file__).resolve().parents[2] / "configs"
    for path in sorted(presets.glob("*.yaml")):
        seeds.append(Seed("config", path.name, _yaml(path.read_text(encoding="utf-8"))))
    for number, text in enumerate(YAMLS):
        seeds.append(Seed("config", f"crafted {number}", _fixed(f"{number}.yaml", text)))
    table = "CaseNo,HeR2 SCORE,PERCENTAGE CELLS WITH COMPLETE MEMBRANE STAINING IRRESPECTIVE OF INTENSITY\n"
    table += "".join(f"{case},{case % 4},{case * 10}%\n" for case in range(1, 9))
    labels = "slide_id;label;group;pct_0;pct_1;pct_2;pct_3\n" + "".join(
        f"s{case};{case % 4}+;p{case};10;20;30;40\n" for case in range(1, 9)
    )
    for name, text in (("truth.csv", table), ("labels.csv", labels)):
        seeds.append(Seed("table", name, _table(name, text)))
    for number, text in enumerate(TABLES):
        seeds.append(Seed("table", f"crafted {number}", _fixed(f"{number}.csv", text)))
    return seeds


def _from_tree(name: str, tree: Any) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        path = folder / name
        path.write_bytes(as_json(damaged_tree(tree, rng), rng))
        return path

    return make


def _fixed(name: str, text: Callable[[], str | bytes]) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        path, content = folder / name, text()
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        path.write_bytes(damaged_bytes(data, rng) if rng.random() < 0.3 else data)
        return path

    return make


def _polygon(coordinates: str, properties: str = "{}") -> str:
    geometry = f'{{"type":"Polygon","coordinates":{coordinates}}}'
    return f'{{"type":"Feature","geometry":{geometry},"properties":{properties}}}'


REGIONS: tuple[Callable[[], str | bytes], ...] = (
    lambda: "[" * 200_000 + "]" * 200_000,
    lambda: '{"type":' * 50_000 + "1" + "}" * 50_000,
    lambda: _polygon("[[[1e400,0],[1,1],[2,2]]]"),
    lambda: _polygon("[[[NaN,0],[Infinity,1],[-Infinity,2]]]"),
    lambda: _polygon(f"[[[{'9' * 5000},0],[1,1],[2,2]]]"),
    lambda: _polygon("[[[1e308,-1e308],[-1e308,1e308],[1e308,1e308]]]"),
    lambda: _polygon("[[" + ",".join("[1,2]" for _ in range(2_000_001)) + "]]"),
    lambda: _polygon("[" + ",".join("[[0,0],[500,0],[500,500]]" for _ in range(100_000)) + "]"),
    lambda: "[" + ",".join(_polygon("[[[0,0],[500,0],[500,500]]]") for _ in range(50_000)) + "]",
    lambda: "[" + ",".join(_polygon("[[[0,0],[5,0],[5,5]]]", f'{{"name":"n{i}"}}') for i in range(50_000)) + "]",
    lambda: _polygon("[[[0,0],[500,0],[500,500]]]", json.dumps({"name": "x" * 5_000_000})),
    lambda: _polygon("[[[0,0],[500,0],[500,500]]]", '{"name":"\\u0000\\n<script>\\ud800"}'),
    lambda: b"\xff\xfe" + bytes(1000),
    lambda: " " * 80_000_000,
)
"""Annotations that are made to harm."""

_LAB: dict[str, Any] = {
    "name": "lab",
    "hematoxylin": [0.65, 0.7, 0.29],
    "dab": [0.27, 0.57, 0.78],
    "dab_gain": 1.2,
    "white": [240.0, 240.0, 242.0],
    "intense_floor_pct": 0.5,
    "classifier": "membrane",
    "classifier_sha256": "0" * 64,
    "controls": {"0": 2, "3+": 2},
    "statements": {"agreement": "0.8"},
}


def _lab(**changes: Any) -> Callable[[], str]:
    return lambda: json.dumps(_LAB | changes)


LABS: tuple[Callable[[], str | bytes], ...] = (
    _lab(dab=[0.27, 0.57, -1e308]),
    _lab(dab=[1e-200, 2e-200, 1e-200], hematoxylin=[2e-200, 1e-200, 1e-200]),
    _lab(dab=[0.65, 0.7, 0.29]),
    _lab(white=[1e308, 1e308, 1e308]),
    _lab(white=[-1.0, 0.0, 0.0]),
    _lab(statements={str(number): "x" for number in range(100_000)}),
)
"""Laboratory profiles whose numbers cannot be computed with, and one that is too long."""

YAMLS: tuple[Callable[[], str | bytes], ...] = (
    lambda: (
        "a: &a [x]\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(f'*{chr(97 + i)}' for _ in range(9))}]\n" for i in range(20)
        )
    ),
    lambda: "model: &a [*a, *a]\ntissue: *a\n",
    lambda: "tissue: &a\n  min_density: *a\n",
    lambda: "!!python/object/apply:os.system ['touch /tmp/pwned']\n",
    lambda: "model: !!python/object/new:os.system ['true']\n",
    lambda: "model: !!python/name:os.system\n",
    lambda: "[" * 50_000,
    lambda: "{a: " * 5_000,
    lambda: "- " * 100_000,
    lambda: "a: " + "&x " * 10_000,
    lambda: "? " * 20_000,
    lambda: "mpp: " + "9" * 10_000,
    lambda: "mpp: 1" + ":59" * 100_000,
    lambda: "mpp: .nan\npatches: {min_tissue: .inf}\n",
    lambda: "".join(f"k{i}: {i}\n" for i in range(60_000)),
    lambda: "<<: &m {a: 1}\n" + "".join(f"m{i}: {{<<: [*m, *m, *m]}}\n" for i in range(20_000)),
    lambda: "".join(
        f"a{i}: &a{i} {{<<: [" + ",".join([f"*a{i - 1}"] * 9) + "]}\n" if i else "a0: &a0 {x: 1}\n"
        for i in range(12)
    ),
    lambda: "compute: {workers: 10000000000000000000}\nregions: {files: [/dev/zero]}\n",
    lambda: "model: " + "x" * 900_000,
    lambda: "date: 9999-99-99\n",
    lambda: "compute: 5\n",
    lambda: "compute: null\n",
    lambda: "1: 2\n? [a, b]\n: c\n",
    lambda: b"\xef\xbb\xbf\x00\xff",
    lambda: "a\0b: c",
    lambda: "model: !!binary " + "A" * 900_000,
    lambda: "x: !!set {? " + ", ? ".join(map(str, range(50_000))) + "}\n",
    lambda: "x: !!int '0b" + "1" * 800_000 + "'\n",
)
"""Configurations that are made to harm."""

TABLES: tuple[Callable[[], str | bytes], ...] = (
    lambda: "CaseNo,HeR2 SCORE\n" + '1,"' + "x" * 5_000_000,
    lambda: "CaseNo,HeR2 SCORE\n" + "," * 2_000_000,
    lambda: ",".join(f"c{i}" for i in range(200_000)) + "\n1,2\n",
    lambda: "CaseNo,CaseNo,HeR2 SCORE,HeR2 SCORE\n1,2,3,0\n",
    lambda: "case,case no,score\n1,2,3\n",
    lambda: "CaseNo;HeR2 SCORE\n" + "1;2\n" * 500_000,
    lambda: "CaseNo,HeR2 SCORE\n" + "9" * 6000 + ",1\n",
    lambda: "slide_id,label\n=cmd|' /C calc'!A0,1+\n<script>,2+\n../../x,3+\n",
    lambda: b"CaseNo,HeR2 SCORE\n1,\xff\xfe\n",
    lambda: "CaseNo,HeR2 SCORE\n1\x002,\x001\n",
    lambda: "",
    lambda: "\n\n\n",
    lambda: "CaseNo,HeR2 SCORE,pct\n1,2\n1,2,3,4,5\n",
    lambda: "CaseNo,HeR2 SCORE,PERCENTAGE CELLS WITH COMPLETE MEMBRANE STAINING\n1,2,nan\n2,1,1e400\n3,1,\u0664\n",
)
"""Tables that are made to harm."""


def _yaml(text: str) -> Any:
    lines = text.splitlines()
    values = (
        "!!python/object:os.x {}",
        "[",
        "&a [*a]",
        ".nan",
        "-1",
        "1e999",
        "null",
        "{}",
        "'" + "x" * 5000 + "'",
        "\t",
    )

    def make(folder: Path, rng: random.Random) -> Path:
        path, changed = folder / "config.yaml", list(lines)
        for _ in range(rng.choice((1, 2, 4))):
            number = rng.randrange(len(changed))
            key = changed[number].split(":")[0]
            changed[number] = rng.choice(
                (f"{key}: {rng.choice(values)}", changed[number] * 2, "", f"  {changed[number]}")
            )
        data = "\n".join(changed).encode()
        path.write_bytes(damaged_bytes(data, rng) if rng.random() < 0.3 else data)
        return path

    return make


def _table(name: str, text: str) -> Any:
    cells = (
        "",
        "nan",
        "1e400",
        '"',
        "'=1+1",
        "-1",
        "+3+3",
        "x" * 10_000,
        "\0",
        "9" * 5000,
        "\u0661",
        ";;;",
        "\ufeff",
    )

    def make(folder: Path, rng: random.Random) -> Path:
        path, separator = folder / name, ";" if ";" in text else ","
        rows = [line.split(separator) for line in text.splitlines()]
        for _ in range(rng.choice((1, 2, 5))):
            row = rng.choice(rows)
            row[rng.randrange(len(row))] = rng.choice(cells)
        data = "\n".join(separator.join(row) for row in rows).encode()
        path.write_bytes(damaged_bytes(data, rng) if rng.random() < 0.3 else data)
        return path

    return make


# Models


def _keras(folder: Path) -> list[Seed]:
    data = os.environ.get("WSI_HER2_TEST_DATA")
    sources = sorted((Path(data) / "keras").glob("*.h5")) if data else []
    seeds = [Seed("keras", path.name, _keras_copy(path)) for path in sources]
    for name, write in KERAS.items():
        seeds.append(Seed("keras", f"crafted {name}", _written(f"{name}.h5", write)))
    seeds.append(Seed("keras", "archive.keras", _written("archive.keras", _archive)))
    return seeds


def _keras_copy(source: Path) -> Any:
    """Mostly its first kilobytes, where HDF5 describes the rest, or a JSON value of the description of layers."""

    def make(folder: Path, rng: random.Random) -> Path:
        path = folder / source.name
        if rng.random() < 0.4:
            import h5py

            shutil.copyfile(source, path)
            path.chmod(0o644)
            with h5py.File(path, "r+") as file:
                described = json.loads(file.attrs["model_config"])
                text = as_json(damaged_tree(described, rng), random.Random(0)).decode("utf-8", "replace")
                file.attrs["model_config"] = text.replace("\0", "")[:60_000] if len(text) > 60_000 else text
            return path
        content = source.read_bytes()
        head, rest = content[:65_536], content[65_536:]
        path.write_bytes(damaged_bytes(head, rng) + rest if rng.random() < 0.8 else damaged_bytes(content, rng))
        return path

    return make


def _written(name: str, write: Callable[[Path, random.Random], None]) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        write(folder / name, rng)
        return folder / name

    return make


def _archive(path: Path, rng: random.Random) -> None:
    """The newer format of Keras: a zip, here with names that lead elsewhere and members that grow."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "[" * 100_000)
        archive.writestr("../../../outside.txt", "x")
        archive.writestr("/tmp/outside.txt", "x")
        archive.writestr("model.weights.h5", bytes(rng.choice((10, 10**8))))


def _models(folder: Path) -> list[Seed]:
    pytest = __import__("pytest")
    try:
        from tests.models.conftest import need_packing, pack_small

        need_packing()
    except pytest.skip.Exception:
        return []
    from wsi_her2.models.networks.architecture import named_architecture

    source = folder / "bundle"
    if not source.exists():
        pack_small(source, named_architecture("pruneff1", 2, sigmoid=True, patch_px=16))
    seeds = [
        Seed("model", "bundle, bytes", _bundle_bytes(source)),
        Seed("model", "bundle, card", _bundle_card(source)),
    ]
    seeds += [Seed("model", f"bundle, {name}", _bundle_edit(source, edit)) for name, edit in BUNDLES.items()]
    seeds.append(Seed("model", "bundle, graph", _bundle_graph(source)))
    return seeds


def _copied(source: Path, folder: Path) -> Path:
    target = folder / "bundle"
    shutil.copytree(source, target)
    return target


def _bundle_bytes(source: Path) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        bundle = _copied(source, folder)
        file = bundle / rng.choice(("model.safetensors", "model.safetensors", "model.onnx"))
        content = file.read_bytes()
        end = rng.choice((8, 4096, len(content)))
        file.write_bytes(damaged_bytes(content[:end], rng) + content[end:])
        return bundle

    return make


def _bundle_card(source: Path) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        from tests.fuzz.crafted_models import header_of, with_header

        bundle = _copied(source, folder)
        file = bundle / "model.safetensors"
        header, rest = header_of(file.read_bytes())
        if rng.random() < 0.6:
            card = json.loads(header["__metadata__"]["wsi_her2"])
            header["__metadata__"]["wsi_her2"] = as_json(damaged_tree(card, rng), rng).decode("utf-8", "replace")
        else:
            header = damaged_tree(header, rng)
        try:
            file.write_bytes(with_header(header, rest))
        except RecursionError:
            file.write_bytes(b"\0" * 8)
        return bundle

    return make


def _bundle_edit(source: Path, edit: Callable[[Path], None]) -> Any:
    def make(folder: Path, rng: random.Random) -> Path:
        bundle = _copied(source, folder)
        edit(bundle)
        return bundle

    return make


def _bundle_graph(source: Path) -> Any:
    """A graph that is damaged while the card vouches for it."""

    def make(folder: Path, rng: random.Random) -> Path:
        bundle = _copied(source, folder)
        graph = (bundle / "model.onnx").read_bytes()
        changed = damaged_bytes(graph, rng) if rng.random() < 0.4 else GraphMutation(rng).of(graph)
        resigned(bundle, changed)
        return bundle

    return make


# Folders


def _datasets(folder: Path) -> list[Seed]:
    from PIL import Image

    source = folder / "dataset"
    if not source.exists():
        for label in ("0", "1+", "2+", "3+"):
            (source / label).mkdir(parents=True)
            for number, suffix in enumerate((".png", ".jpg", ".tif", ".bmp")):
                Image.fromarray(tissue(64)).save(source / label / f"p{number}{suffix}")

    def make(place: Path, rng: random.Random) -> Path:
        target = place / "dataset"
        shutil.copytree(source, target)
        files = sorted(path for path in target.rglob("*") if path.is_file())
        for path in rng.sample(files, 3):
            content = path.read_bytes()
            path.write_bytes(damaged_slide(content, rng) if rng.random() < 0.5 else damaged_bytes(content, rng))
        if rng.random() < 0.3:
            name, build = rng.choice(sorted(crafted.SLIDES.items()))
            (target / "0" / f"{name}.tif").write_bytes(build())
        if rng.random() < 0.2:
            (target / "0" / "out.png").symlink_to("/etc/passwd")
            (target / "1+" / "loop.png").symlink_to("loop.png")
        if rng.random() < 0.2:
            (target / "0" / ("x" * 200 + "\n<script>=.png")).write_bytes(b"")
        return target

    return [Seed("dataset", "folder of classes", make)]


def _stores(folder: Path) -> list[Seed]:
    from wsi_her2.scoring.quality import QUALITY
    from wsi_her2.slides.grid import plan_patches
    from wsi_her2.slides.slide import slide_from_array
    from wsi_her2.slides.store import PatchStore
    from wsi_her2.slides.tissue import detect_tissue

    source = folder / "run" / "slide" / "patches.zarr"
    if not source.exists():
        slide = slide_from_array(tissue(), 0.5)
        mask = detect_tissue(slide)
        grid = plan_patches(slide, mask, 64, 0.5)
        store = PatchStore.create(source, grid, classes=("0", "1+"), quality=QUALITY, pixels=True)
        store.write_overview(mask)
        for block in range(grid.n_blocks):
            rows = grid.block_rows
            pixels = np.full((rows, 64, 64, 3), 100, np.uint8)
            quality = np.zeros((rows, len(QUALITY)), np.float32)
            store.write_block(block, np.full((rows, 2), 0.5, np.float32), quality, None, pixels)

    def make(place: Path, rng: random.Random) -> Path:
        target = place / "run"
        shutil.copytree(folder / "run", target)
        files = sorted(path for path in target.rglob("*") if path.is_file())
        described = [path for path in files if path.name == "zarr.json"]
        for _ in range(rng.choice((1, 2))):
            path = rng.choice(described if rng.random() < 0.7 else files)
            if path.name == "zarr.json":
                path.write_bytes(as_json(damaged_tree(json.loads(path.read_text()), rng), rng))
                described = [other for other in described if other != path] or [files[0]]
            else:
                path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        return target

    return [Seed("store", "run with patches", make)]
