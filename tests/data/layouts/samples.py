"""Exports as the programs write them: two drawn birds, a red rook and a blue crow, in one image, or an image each."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

from PIL import Image

SIZE = (100, 80)
BOXES = {"rook": (10, 10, 40, 30), "crow": (50, 40, 90, 70)}
COLOURS = {"rook": (220, 20, 20), "crow": (20, 20, 220)}


def scene(path: Path) -> Path:
    """The image with both birds."""
    image = Image.new("RGB", SIZE, (230, 230, 230))
    for name, box in BOXES.items():
        image.paste(COLOURS[name], box)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _json(path: Path, value: object) -> Path:
    return _text(path, json.dumps(value))


def _csv(path: Path, rows: list[list[object]], delimiter: str = ",") -> Path:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return _text(path, text.getvalue())


def coco_value(file: str = "scene.png") -> dict:
    annotations = [
        {
            "id": i,
            "image_id": 7,
            "category_id": i,
            "bbox": [x, y, r - x, b - y],
            "area": 1,
            "iscrowd": 0,
            "segmentation": [],
        }
        for i, (x, y, r, b) in enumerate(BOXES.values(), 1)
    ]
    crowd = {**annotations[0], "id": 9, "iscrowd": 1}
    return {
        "info": {"description": "birds"},
        "licenses": [{"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}],
        "images": [{"id": 7, "license": 1, "file_name": file, "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": 0, "name": "birds", "supercategory": "none"}]
        + [{"id": i, "name": n, "supercategory": "birds"} for i, n in enumerate(BOXES, 1)],
        "annotations": [*annotations, crowd],
    }


def coco(root: Path) -> Path:
    scene(root / "images/scene.png")
    return _json(root / "instances.json", coco_value())


def label_studio(root: Path) -> Path:
    scene(root / "ab12cd34-scene.png")
    results = [
        {
            "id": name,
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": SIZE[0],
            "original_height": SIZE[1],
            "image_rotation": 0,
            "origin": "manual",
            "value": {
                "x": 100 * x / SIZE[0],
                "y": 100 * y / SIZE[1],
                "width": 100 * (r - x) / SIZE[0],
                "height": 100 * (b - y) / SIZE[1],
                "rotation": 0,
                "rectanglelabels": [name],
            },
        }
        for name, (x, y, r, b) in BOXES.items()
    ]
    wrong = [{**results[0], "value": {**results[0]["value"], "rectanglelabels": ["wrong"]}}]
    task = {
        "id": 1,
        "data": {"image": "/data/upload/1/ab12cd34-scene.png"},
        "annotations": [
            {"id": 1, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "result": results},
            {"id": 2, "completed_by": 1, "was_cancelled": True, "ground_truth": False, "result": wrong},
        ],
        "predictions": [],
        "file_upload": "ab12cd34-scene.png",
        "project": 1,
    }
    return _json(root / "project-1-at-2024-05-01-10-00-abcdef.json", [task])


def label_studio_min(root: Path) -> Path:
    scene(root / "scene.png")
    full = json.loads(label_studio(root / "full").read_text())[0]["annotations"][0]["result"]
    values = [r["value"] | {"original_width": SIZE[0], "original_height": SIZE[1]} for r in full]
    task = {
        "image": "/data/local-files/?d=birds/scene.png",
        "id": 1,
        "label": values,
        "annotator": 1,
        "annotation_id": 1,
    }
    return _json(root / "min.json", [task])


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>4</id><name>birds</name></task></meta>
  <image id="0" name="scene.png" width="100" height="80">
    <box label="rook" source="manual" occluded="0" xtl="10.00" ytl="10.00" xbr="40.00" ybr="30.00" z_order="0">
      <attribute name="sex">f</attribute>
    </box>
    <polygon label="crow" source="manual" occluded="0" points="50.00,40.00;90.00,40.00;90.00,70.00;50.0,70.0">
    </polygon>
    <points label="eye" points="12.0,12.0" z_order="0"></points>
  </image>
  <image id="1" name="empty.png" width="100" height="80"></image>
</annotations>
"""


def cvat(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "task.zip", "w") as archive:
        archive.writestr("annotations.xml", CVAT)
        archive.write(scene(root / "scene.png"), "images/scene.png")
    (root / "scene.png").unlink()
    return root / "task.zip"


def _via_regions() -> list[dict]:
    (x, y, r, b), (x2, y2, r2, b2) = BOXES.values()
    return [
        {
            "shape_attributes": {"name": "rect", "x": x, "y": y, "width": r - x, "height": b - y},
            "region_attributes": {"species": "rook", "quality": {"good": True, "blur": False}},
        },
        {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [x2, r2, r2, x2],
                "all_points_y": [y2, y2, b2, b2],
            },
            "region_attributes": {"species": "crow", "quality": {}},
        },
        {"shape_attributes": {"name": "point", "cx": 5, "cy": 5}, "region_attributes": {}},
    ]


def via(root: Path) -> Path:
    scene(root / "scene.png")
    image = {"filename": "scene.png", "size": 300, "regions": _via_regions(), "file_attributes": {}}
    settings = {"_via_settings": {"project": {"name": "birds"}}, "_via_attributes": {"region": {}, "file": {}}}
    return _json(root / "via_project.json", {**settings, "_via_img_metadata": {"scene.png300": image}})


def via_1(root: Path) -> Path:
    scene(root / "scene.png")
    regions = {str(i): region for i, region in enumerate(_via_regions())}
    image = {
        "fileref": "",
        "size": 300,
        "filename": "scene.png",
        "base64_img_data": "",
        "file_attributes": {},
        "regions": regions,
    }
    return _json(root / "via_region_data.json", {"scene.png300": image})


def via_csv(root: Path) -> Path:
    scene(root / "scene.png")
    header = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    rows: list[list[object]] = [[*header, "region_shape_attributes", "region_attributes"]]
    for i, region in enumerate(_via_regions()):
        shape, about = (json.dumps(region[k]) for k in ("shape_attributes", "region_attributes"))
        rows.append(["scene.png", 300, "{}", 3, i, shape, about])
    rows.append(["empty.png", 300, "{}", 0, 0, "{}", "{}"])
    return _csv(root / "via_export_csv.csv", rows)


def roboflow_coco(root: Path) -> Path:
    for part in ("train", "test"):
        scene(root / part / "scene_png.rf.0a1b2c.jpg.png")
        value = coco_value("scene_png.rf.0a1b2c.jpg.png")
        if part == "train":  # the crow is of the test alone
            value["annotations"] = value["annotations"][:1]
        _json(root / part / "_annotations.coco.json", value)
    _text(root / "README.dataset.txt", "birds > 2024-05-01")
    return root


def roboflow_csv(root: Path) -> Path:
    scene(root / "valid/scene.png")
    rows = [["scene.png", *SIZE, name, *box] for name, box in BOXES.items()]
    _csv(
        root / "valid/_annotations.csv",
        [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"], *rows],
    )
    return root


def roboflow_yolo(root: Path) -> Path:
    scene(root / "train/images/scene.png")
    _text(root / "data.yaml", "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['crow', 'rook']\n")
    (x, y, r, b), (x2, y2, r2, b2) = BOXES.values()
    w, h = SIZE
    rook = f"1 {(x + r) / 2 / w} {(y + b) / 2 / h} {(r - x) / w} {(b - y) / h}"
    crow = f"0 {x2 / w} {y2 / h} {r2 / w} {y2 / h} {r2 / w} {b2 / h} {x2 / w} {b2 / h}"
    _text(root / "train/labels/scene.txt", f"{rook}\n{crow}\n")
    return root


def voc(root: Path) -> Path:
    scene(root / "train/scene.png")
    things = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        f"<bndbox><xmin>{x}</xmin><xmax>{r}</xmax><ymin>{y}</ymin><ymax>{b}</ymax></bndbox></object>"
        for name, (x, y, r, b) in BOXES.items()
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    head = f"<folder></folder><filename>scene.png</filename><path>scene.png</path>{size}<segmented>0</segmented>"
    _text(root / "train/scene.xml", f"<annotation>{head}{things}</annotation>")
    return root


BOXED = {
    "coco": coco,
    "label-studio": label_studio,
    "label-studio min": label_studio_min,
    "cvat": cvat,
    "via": via,
    "via 1": via_1,
    "via csv": via_csv,
    "roboflow coco": roboflow_coco,
    "roboflow csv": roboflow_csv,
    "roboflow yolo": roboflow_yolo,
    "roboflow voc": voc,
}
LAYOUT_OF = {"roboflow coco": "coco"}


META = """<archive xmlns="http://rs.tdwg.org/dwc/text/" metadata="metadata.xml">
  <core encoding="UTF-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy="" ignoreHeaderLines="1"
    rowType="http://rs.tdwg.org/dwc/terms/Occurrence">
    <files><location>occurrence.txt</location></files>
    <id index="0"/>
    <field index="0" term="http://rs.gbif.org/terms/1.0/gbifID"/>
    <field index="1" term="http://purl.org/dc/terms/license"/>
    <field index="2" term="http://rs.tdwg.org/dwc/terms/recordedBy"/>
    <field index="3" term="http://rs.tdwg.org/dwc/terms/scientificName"/>
    <field index="4" term="http://rs.gbif.org/terms/1.0/species"/>
    <field term="http://rs.tdwg.org/dwc/terms/basisOfRecord" default="HumanObservation"/>
  </core>
  <extension encoding="UTF-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy="" ignoreHeaderLines="1"
    rowType="http://rs.gbif.org/terms/1.0/Multimedia">
    <files><location>multimedia.txt</location></files>
    <coreid index="0"/>
    <field index="1" term="http://purl.org/dc/terms/type"/>
    <field index="2" term="http://purl.org/dc/terms/format"/>
    <field index="3" term="http://purl.org/dc/terms/identifier"/>
    <field index="4" term="http://purl.org/dc/terms/creator"/>
    <field index="5" term="http://purl.org/dc/terms/license"/>
  </extension>
</archive>
"""


def images_at(root: Path) -> dict[str, str]:
    """An image each, at an address that fsspec opens."""
    found = {}
    for name, colour in COLOURS.items():
        path = root / f"photos/{name}/medium.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), colour).save(path)
        found[name] = f"file://{path}"
    return found


def gbif(root: Path) -> Path:
    at = images_at(root)
    core = [["gbifID", "license", "recordedBy", "scientificName", "species"]]
    core += [["11", "CC_BY_4_0", 'A. "Al" Finder', "Corvus frugilegus L.", "Corvus frugilegus"]]
    core += [["12", "CC0_1_0", "", "Corvus corone L.", "Corvus corone"], ["13", "", "", "Corvus", ""]]
    media = [["gbifID", "type", "format", "identifier", "creator", "license"]]
    media += [["11", "StillImage", "image/jpeg", at["rook"], "B. Seer", "http://creativecommons.org/licenses/by/4.0/"]]
    media += [["12", "StillImage", "image/jpeg", at["crow"], "", ""], ["12", "Sound", "audio/mpeg", "x.mp3", "", ""]]
    media += [["13", "StillImage", "image/jpeg", at["crow"], "", ""]]
    with zipfile.ZipFile(root / "0001-240501.zip", "w") as archive:
        archive.writestr("meta.xml", META)
        for name, rows in (("occurrence.txt", core), ("multimedia.txt", media)):
            archive.writestr(name, "".join("\t".join(row) + "\n" for row in rows))
    return root / "0001-240501.zip"


def gbif_simple(root: Path) -> Path:
    header = [
        "gbifID",
        "datasetKey",
        "occurrenceID",
        "kingdom",
        "species",
        "scientificName",
        "occurrenceStatus",
        "mediaType",
    ]
    return _csv(
        root / "0002.csv", [header, ["11", "k", "o", "Animalia", "C f", "C f L.", "PRESENT", "StillImage"]], "\t"
    )


def inaturalist(root: Path) -> Path:
    at = images_at(root)
    header = "id,observed_on,user_login,user_name,quality_grade,license,url,image_url,"
    header += "species_guess,scientific_name,common_name,taxon_id"
    rows = [
        [
            "1",
            "2024-05-01",
            "al",
            "Al F.",
            "research",
            "CC-BY-NC",
            "u",
            at["rook"],
            "Rook",
            "Corvus frugilegus",
            "Rook",
            "9",
        ],
        [
            "2",
            "2024-05-02",
            "bo",
            "",
            "needs_id",
            "",
            "u",
            at["crow"],
            "crow, black",
            "Corvus corone",
            "Carrion Crow",
            "8",
        ],
        ["3", "2024-05-02", "bo", "", "casual", "", "u", "", "crow", "Corvus corone", "Carrion Crow", "8"],
    ]
    return _csv(root / "observations-1.csv", [header.split(","), *rows])


def avonet(root: Path) -> Path:
    """The columns of AVONET's sheet of BirdLife species, a few of its rows' sizes."""
    header = ["Species1", "Family1", "Order1", "Avibase.ID1", "Total.individuals", "Female", "Beak.Length_Culmen"]
    header += ["Mass", "Mass.Source", "Habitat", "Trophic.Level", "Range.Size"]
    rows = [
        [
            *(f"Avis {'abcdefghijkl'[i]}", "Avidae", "Aves", f"AVIBASE-{i:08X}", 4 + i % 3, i % 2, 10 + i / 10),
            *(round(4 * 1.9**i, 1), "Dunning"),
            *(["Forest", "Wetland", "NA"][i % 3], ["Herbivore", "Carnivore"][i % 2], 10**i),
        ]
        for i in range(12)
    ]
    return _csv(root / "AVONET1_BirdLife.csv", [header, *rows])


def traitbank(root: Path) -> Path:
    header = "eol_pk,page_id,resource_pk,resource_id,source,scientific_name,predicate,object_page_id,value_uri,"
    header += "normal_measurement,normal_units_uri,normal_units,measurement,units_uri,units,literal,method,remarks,"
    header += "sample_size"
    columns = header.split(",")

    def row(page: str, name: str, predicate: str, **cells: str) -> list[str]:
        known = {
            "eol_pk": "R1-PK1",
            "page_id": page,
            "resource_id": "1",
            "scientific_name": name,
            "predicate": predicate,
        }
        return [({**known, **cells}).get(column, "") for column in columns]

    mass, habitat = "http://purl.obolibrary.org/obo/VT_0001259", "http://eol.org/schema/terms/Habitat"
    forest, marsh = "http://purl.obolibrary.org/obo/ENVO_01000174", "http://purl.obolibrary.org/obo/ENVO_00000035"
    rows = [
        row("1", "Rana a", mass, normal_measurement="20", normal_units="g", measurement="0.02", units="kg"),
        row("1", "Rana a", mass, normal_measurement="30", normal_units="g"),
        row("1", "Rana a", habitat, value_uri=forest),
        row("1", "Rana a", habitat, value_uri=marsh),
        row("2", "Rana b", mass, normal_measurement="7", normal_units="g"),
        row("2", "Rana b", mass, normal_measurement="9", normal_units="mm"),
        row("2", "Rana b", habitat, value_uri=marsh),
    ]
    _csv(root / "trait_bank/traits.csv", [columns, *rows])
    terms = [["uri", "name", "type"], [mass, "body mass", "measurement"], [habitat, "habitat", "association"]]
    _csv(root / "trait_bank/terms.csv", [*terms, [forest, "forest", "value"], [marsh, "marsh", "value"]])
    _csv(
        root / "trait_bank/pages.csv", [["page_id", "parent_id", "rank", "canonical"], ["1", "0", "species", "Rana a"]]
    )
    return root / "trait_bank"
