"""Backbones give timm's own features, and the transform torchvision's own pixels."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageCms, ImageOps
from safetensors.torch import save_file
from torchvision.transforms import v2

import unseen
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.transform import Transform
from unseen.errors import DataError, UnseenError
from unseen.fieldguide import BACKBONE
from unseen.ground.images import HeldImage, open_image, upright_rgb
from unseen.training.plan import default_backbone

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small only suffer from threads, and the tests from each other's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spec(name: str = "test_resnet", **kwargs) -> BackboneSpec:
    return BackboneSpec(name, **{"weights": "random", **kwargs})


def regions_of(feature_map: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) to (B, R, C) by hand."""
    b, c, h, w = feature_map.shape
    return torch.stack([feature_map[:, :, r // w, r % w] for r in range(h * w)], dim=1).reshape(b, h * w, c)


def noise(side: int, batch: int = 2) -> torch.Tensor:
    pixels = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))
    return pixels.contiguous(memory_format=torch.channels_last)  # as the backbone runs, to the last bit


@torch.inference_mode()
def both(backbone: Backbone, side: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    pixels = noise(side)
    return backbone(pixels), backbone.model.forward_features(pixels)


class TestRegions:
    @pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_nfnet", "test_maxvit"])
    def test_convolutional(self, name):
        backbone = Backbone(spec(name))
        (regions,), expected = both(backbone, 160)
        assert torch.equal(regions, regions_of(expected))
        assert backbone.grids == [(5, 5)]
        assert backbone.channels == [expected.shape[1]]

    def test_channels_last_network(self):
        backbone = Backbone(spec("test_mambaout", stages=("final", 3)))
        (final, last), expected = both(backbone, 160)
        assert expected.shape == (2, 5, 5, 64)
        assert torch.equal(final, expected.reshape(2, 25, 64))
        assert last.shape == (2, 25, 64)

    def test_swin_at_another_size(self):
        name = "swin_tiny_patch4_window7_224"
        backbone = Backbone(spec(name, image_size=128, options={"depths": (1, 1, 1, 1)}))
        (regions,), expected = both(backbone, 128)
        assert torch.equal(regions, expected.reshape(2, 16, 768))

    def test_vit_at_another_size_without_its_prefix_tokens(self):
        backbone = Backbone(spec("test_vit", image_size=96))
        (regions,), expected = both(backbone, 96)
        assert expected.shape == (2, 37, 64)
        assert torch.equal(regions, expected[:, 1:])
        assert backbone.grids == [(6, 6)]

    @pytest.mark.parametrize("stages", [(-1, 1), (1, "final", 3, -2), (0,)])
    @pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
    def test_intermediate_stages_in_the_order_asked_for(self, name, stages):
        backbone = Backbone(spec(name, stages=stages))
        regions, final = both(backbone, 160)
        with torch.inference_mode():
            maps = backbone.model.forward_intermediates(noise(160), intermediates_only=True)
        for stage, found in zip(stages, regions, strict=True):
            if stage != "final":
                assert torch.equal(found, regions_of(maps[stage]))
            else:
                assert torch.equal(found, regions_of(final) if name == "test_resnet" else final[:, 1:])
        assert backbone.grids == [(int(f.shape[1] ** 0.5),) * 2 for f in regions]
        assert backbone.channels == [f.shape[2] for f in regions]

    def test_joined_maps_are_channels_of_the_last_ones_grid(self):
        joined = Backbone(spec("test_resnet", stages=("1+-2+final",)))
        apart = Backbone(spec("test_resnet", stages=(1, -2, "final")))
        with torch.inference_mode():
            found, maps = joined.maps(noise(160))[0], apart.maps(noise(160))
        grid = maps[-1].shape[2:]
        expected = [torch.nn.functional.adaptive_avg_pool2d(m, grid) for m in maps[:2]]
        assert torch.allclose(found, torch.cat([*expected, maps[2]], dim=1), atol=1e-6)
        assert torch.equal(found[:, -apart.channels[2] :], maps[2])
        assert joined.parts == [tuple(apart.channels)]
        assert joined.channels == [sum(apart.channels)]
        assert joined.grids == apart.grids[2:]

    def test_resnet101_as_published(self):
        backbone = Backbone(spec("resnet101", image_size=448))
        assert (backbone.grids, backbone.channels) == ([(14, 14)], [2048])

    def test_options_reach_timm(self):
        assert Backbone(spec("test_resnet", options={"output_stride": 16})).grids == [(10, 10)]

    def test_frozen_in_evaluation_mode(self):
        backbone = Backbone(spec()).train()
        assert not any(m.training for m in backbone.modules())
        assert not any(p.requires_grad for p in backbone.parameters())

    def test_building_leaves_the_random_state(self):
        before = torch.get_rng_state()
        Backbone(spec())
        assert torch.equal(before, torch.get_rng_state())

    def test_random_weights_follow_the_seed(self):
        def first(seed):
            return next(Backbone(spec(seed=seed)).parameters())

        assert torch.equal(first(3), first(3))
        assert not torch.equal(first(3), first(4))


def test_entries_may_be_paths_lists_and_numbers_of_numpy(tmp_path):
    half = np.full(3, 0.5, np.float32)
    entries = {"image_size": np.int64(64), "seed": np.int32(3), "crop": np.float32(0.5), "zoom": np.int64(2)}
    made = BackboneSpec(
        "test_resnet", weights=tmp_path / "x.safetensors", stages=np.array([-2]), mean=[0.5] * 3, std=half,
        options={"output_stride": np.int64(16), "channels": [8, 16]}, **entries,
    )  # fmt: skip
    plain = {"image_size": 64, "seed": 3, "crop": 0.5, "zoom": 2, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    options = {"output_stride": 16, "channels": (8, 16)}
    same = BackboneSpec("test_resnet", weights=str(tmp_path / "x.safetensors"), stages=(-2,), options=options, **plain)
    assert made == same == BackboneSpec.from_json(json.loads(json.dumps(made.to_json())))
    assert made.to_json()["zoom"] == 2
    assert BackboneSpec("test_resnet", stages=-2).stages == (-2,)
    assert BackboneSpec("test_resnet", stages="-2+final").stages == ("-2+final",)


class TestMistakes:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"name": "test_resnt"}, "did you mean test_resnet"),
            ({"name": "feildguide"}, "did you mean fieldguide"),
            ({"name": "test_resnet.nope"}, "available: test_resnet.r160_in1k"),
            ({"stages": ()}, "stages must be distinct"),
            ({"stages": ("last",)}, "'last' is not a valid stage"),
            ({"stages": (True,)}, "True is not a valid stage"),
            ({"stages": ("-2",)}, "'-2' is not a valid stage"),
            ({"stages": ("-2+last",)}, "'-2\\+last' is not a valid stage"),
            ({"stages": ("final+final",)}, "is not a valid stage"),
            ({"crop": 0.0}, "crop 0.0 is not in"),
            ({"pixels": "quick"}, 'pixels "quick" — use exact or fast'),
            ({"image_size": 0}, "image size 0"),
            ({"std": (0.5, 0.5, 0.0)}, "std"),
            ({"mean": (0.5,)}, "mean"),
            ({"seed": 2.5}, "seed 2.5 — use a seed from 0"),
            ({"crop": "0.5"}, "crop 0.5 is not in"),
            ({"options": {"act_layer": torch.nn.GELU}}, "options .*GELU.* cannot be stored — options are numbers"),
        ],
    )
    def test_spec(self, kwargs, message):
        with pytest.raises(UnseenError, match=message):
            spec(**kwargs)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"stages": (5,)}, r'test_resnet: no stage 5 — use one of "final", 0 \(32 channels, 1/2\), .*4 \(96 ch'),
            ({"stages": (-6,)}, "no stage -6"),
            ({"options": {"bogus": 1}}, "bogus"),
            ({"name": "test_vit", "image_size": 150}, "150.*patch size"),
            ({"name": "crossvit_tiny_240"}, "do not form a grid"),
        ],
    )
    def test_network(self, kwargs, message):
        with pytest.raises(UnseenError, match=message) as caught:
            Backbone(spec(**kwargs))
        assert "\n" not in str(caught.value)

    def test_pretrained_without_a_network(self, monkeypatch, tmp_path):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(UnseenError, match=r"--backbone-weights FILE"):
            Backbone(spec(weights="pretrained"))


class TestWeights:
    def state(self, name: str = "test_resnet", **kwargs) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        return timm.create_model(name, **kwargs).state_dict()

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        return tmp_path / "weights.safetensors"

    def test_file(self, path):
        state = self.state()
        save_file(state, path)
        backbone = Backbone(spec(weights=str(path)))
        own = backbone.model.state_dict()
        assert set(state) - set(own) == {"fc.weight", "fc.bias"}
        assert all(torch.equal(own[k], state[k]) for k in own)

    def test_half_precision_and_no_head(self, path):
        state = {k: v.half() if v.is_floating_point() else v for k, v in self.state(num_classes=0).items()}
        save_file(state, path)
        own = Backbone(spec(weights=str(path))).model.state_dict()
        assert all(own[k].dtype != torch.float16 and torch.equal(own[k], state[k].to(own[k].dtype)) for k in own)

    def test_position_embeddings_adapt_to_another_size(self, path):
        save_file(self.state("test_vit"), path)
        backbone = Backbone(spec("test_vit", weights=str(path), image_size=96))
        reference = timm.create_model("test_vit", img_size=96).eval()
        reference.load_state_dict(
            timm.models.vision_transformer.checkpoint_filter_fn(self.state("test_vit"), reference)
        )
        with torch.inference_mode():
            torch.testing.assert_close(backbone(noise(96))[0], reference.forward_features(noise(96))[:, 1:])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("conv1.0.weight"), r"1 missing \(conv1.0.weight\)"),
            (
                lambda s: s.update({f"extra{i}": torch.ones(1) for i in range(4)}),
                r"4 unexpected \(extra0, .*, \.\.\.\)",
            ),
            (lambda s: s.update({"conv1.1.bias": torch.ones(3)}), r"1 mis-shaped \(conv1.1.bias \(3,\) instead of"),
        ],
    )
    def test_misfit(self, path, change, message):
        state = self.state()
        change(state)
        save_file(state, path)
        with pytest.raises(UnseenError, match=message) as caught:
            Backbone(spec(weights=str(path)))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_of_another_family(self, path):
        save_file(self.state("test_vit"), path)
        with pytest.raises(UnseenError, match="does not match the network"):
            Backbone(spec("test_convnext", weights=str(path)))

    def test_missing_file(self, path):
        with pytest.raises(UnseenError, match='no such weights file — use "pretrained"'):
            Backbone(spec(weights=str(path)))

    def test_not_safetensors(self, path):
        path.write_bytes(b"")
        with pytest.raises(UnseenError, match="not a readable safetensors file"):
            Backbone(spec(weights=str(path)))

    @pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
    def test_pickle_is_refused_unopened(self, tmp_path, name):
        class Evil:
            def __reduce__(self):
                return (tmp_path / "run").touch, ()

        path = tmp_path / name
        path.write_bytes(pickle.dumps(Evil()))
        with pytest.raises(
            UnseenError, match=r"a pickle; unseen does not load pickles — convert it once with .*save_file"
        ):
            Backbone(spec(weights=str(path)))
        torch.save(self.state(), path)
        with pytest.raises(UnseenError, match="a pickle"):
            Backbone(spec(weights=str(path)))
        assert not (tmp_path / "run").exists()


class TestSpec:
    def test_json_round_trip(self):
        import json

        first = spec(stages=("final", -2), image_size=96, options={"a": [1, 2]}, mean=HALF, crop=0.9, seed=4)
        assert BackboneSpec.from_json(json.loads(json.dumps(first.to_json()))) == first
        assert BackboneSpec.from_json(spec().to_json()) == spec()

    @pytest.mark.parametrize("data", [{"name": "test_resnet", "nope": 1}, {}])
    def test_json_of_something_else(self, data):
        with pytest.raises(UnseenError, match=r"backbone spec, \w+: (unknown entry|is missing)"):
            BackboneSpec.from_json(data)

    def test_fingerprint_says_the_same_for_defaults_spelt_out(self):
        assert spec().fingerprint() == spec(image_size=160, mean=HALF, std=HALF).fingerprint()
        pretrained = spec(weights="pretrained")
        assert pretrained.fingerprint() == spec("test_resnet.r160_in1k", weights="pretrained").fingerprint()

    def test_fingerprint_changes_with_whatever_changes_the_features(self):
        others = [
            spec(),
            spec("test_resnet", weights="pretrained"),
            spec("test_vit"),
            spec(stages=(-1,)),
            spec(image_size=64),
            spec(mean=(0.4, 0.5, 0.5)),
            spec(std=(0.4, 0.5, 0.5)),
            spec(crop=0.9),
            spec(pixels="fast"),
            spec(options={"output_stride": 16}),
            spec(seed=1),
        ]
        assert len({s.fingerprint() for s in others}) == len(others)

    def test_fingerprint_follows_the_content_of_the_weights(self, tmp_path):
        first, second, third = (tmp_path / f"{i}.safetensors" for i in range(3))
        save_file({"a": torch.zeros(2)}, first)
        save_file({"a": torch.zeros(2)}, second)
        save_file({"a": torch.ones(2)}, third)
        a, b, c = (spec(weights=str(p), seed=i).fingerprint() for i, p in enumerate((first, second, third)))
        assert a == b != c


def image(width: int = 90, height: int = 60, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def transform(size: int = 32, crop: float = 1.0) -> Transform:
    return Transform(size, HALF, (0.25, 0.5, 1.0), crop)


class TestTransform:
    def test_fast_pixels_are_those_of_pillow_but_for_rounding(self, tmp_path):
        smooth = image().resize((640, 480), Image.Resampling.BICUBIC)
        exact, fast = (Transform(64, HALF, HALF, fast=fast) for fast in (False, True))
        apart = (exact.cropped(smooth).int() - fast.cropped(smooth).int()).abs()
        assert apart.max() <= 2
        assert (apart > 0).float().mean() < 0.05
        smooth.save(tmp_path / "large.jpg", quality=95)
        assert open_image(tmp_path / "large.jpg", 128).size == (320, 240)  # half of it keeps 128, a quarter does not
        data = HeldImage("large.jpg", (tmp_path / "large.jpg").read_bytes())
        assert torch.equal(fast.cropped(data), fast.cropped(tmp_path / "large.jpg"))
        apart = (exact.cropped(tmp_path / "large.jpg").int() - fast.cropped(tmp_path / "large.jpg").int()).abs()
        assert 0 < apart.float().mean() < 2

    @pytest.mark.parametrize("crop", [1.0, 0.875])
    @pytest.mark.parametrize("size", [(90, 60), (60, 91), (32, 32), (20, 500)])
    def test_equals_torchvision(self, size, crop):
        by_hand = v2.Compose(
            [
                v2.Resize(round(32 / crop), v2.InterpolationMode.BICUBIC, antialias=True),
                v2.CenterCrop(32),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(HALF, (0.25, 0.5, 1.0)),
            ]
        )
        found = transform(crop=crop)(image(*size))
        assert found.shape == (3, 32, 32)
        assert torch.equal(found, by_hand(image(*size)))

    def test_values(self):
        found = transform(4)(Image.new("RGB", (8, 8), (255, 0, 51)))
        torch.testing.assert_close(found[:, 0, 0], torch.tensor([2.0, -1.0, -0.3]))

    def test_backbone_gives_its_own(self):
        backbone = Backbone(spec("test_efficientnet", image_size=64, crop=0.9))
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        assert backbone.transform == Transform(64, mean, std, 0.9)

    def test_path_and_image_alike(self, tmp_path):
        image().save(tmp_path / "a.png")
        assert torch.equal(transform()(tmp_path / "a.png"), transform()(image()))


class TestGeometry:
    def test_crop_box_by_hand(self):
        # 600 x 400 resized to 96 x 64, of which the columns 16 to 80 are seen: 100 to 500 of the original
        assert transform(64).crop_box(600, 400) == (100, 0, 500, 400)
        # resized to 128 x 128, of which 32 to 96 are seen: a quarter is cut off on every side
        assert transform(64, crop=0.5).crop_box(200, 200) == (50, 50, 150, 150)
        # resized to 64 x 160, rows 48 to 112
        assert transform(64).crop_box(100, 250) == (0, 75, 100, 175)

    def test_points(self):
        t = transform(64)
        assert t.to_input(100, 0, 600, 400) == (0, 0)
        assert t.to_input(300, 200, 600, 400) == (32, 32)
        assert t.to_input(0, 400, 600, 400) == (-16, 64)
        assert t.to_image(32, 16, 600, 400) == (300, 100)

    @pytest.mark.parametrize(("width", "height"), [(501, 333), (333, 500), (227, 224), (17, 19)])
    @pytest.mark.parametrize("crop", [1.0, 0.875])
    def test_round_trip_and_torchvision_agrees(self, width, height, crop):
        t = transform(48, crop)
        assert t.to_input(*t.to_image(11.5, 30.25, width, height), width, height) == pytest.approx((11.5, 30.25))
        # an image that holds its own coordinates shows where its pixels went
        x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        seen = v2.Resize(round(48 / crop), antialias=True)(torch.from_numpy(np.stack([x, y])))
        seen = v2.CenterCrop(48)(seen)
        for row, column in ((5, 7), (24, 24), (40, 33)):
            expected = t.to_image(column + 0.5, row + 0.5, width, height)
            found = (seen[0, row, column].item() * width, seen[1, row, column].item() * height)
            assert found == pytest.approx(expected, abs=0.1)  # sampling shifts a kernel a little


class TestOpenImage:
    def pixels(self, path: Path) -> np.ndarray:
        image = open_image(path)
        assert image.mode == "RGB"
        return np.asarray(image)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, tmp_path, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image(6, 4).save(tmp_path / "a.png", exif=exif)
        turned = {
            1: lambda a: a,
            2: np.fliplr,
            3: lambda a: np.rot90(a, 2),
            4: np.flipud,
            5: lambda a: a.swapaxes(0, 1),
            6: lambda a: np.rot90(a, -1),
            7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
            8: np.rot90,
        }[orientation]
        np.testing.assert_array_equal(self.pixels(tmp_path / "a.png"), turned(np.asarray(image(6, 4))))

    def test_cmyk(self, tmp_path):
        Image.new("CMYK", (5, 5), (0, 255, 255, 0)).save(tmp_path / "a.tif")
        assert self.pixels(tmp_path / "a.tif").tolist() == [[[255, 0, 0]] * 5] * 5

    def test_grey(self, tmp_path):
        Image.new("L", (5, 5), 77).save(tmp_path / "a.png")
        assert (self.pixels(tmp_path / "a.png") == 77).all()

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bits_keep_their_range(self, tmp_path, suffix):
        values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        assert self.pixels(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 0, 1, 128, 255]

    def test_transparent_palette_on_white(self, tmp_path):
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putdata([0, 1])
        image.save(tmp_path / "a.png", transparency=0)
        assert self.pixels(tmp_path / "a.png").tolist() == [[[255, 255, 255], [200, 100, 50]]]

    def test_half_transparent(self):
        assert upright_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)

    def test_bilevel(self):
        assert upright_rgb(Image.new("1", (1, 1), 1)).getpixel((0, 0)) == (255, 255, 255)

    def test_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("P", (3, 3), i) for i in range(3)]
        for frame in frames:
            frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert self.pixels(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]

    def broken(self, path: Path, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            transform()(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    def test_truncated(self, tmp_path, suffix):
        path = tmp_path / f"a.{suffix}"
        image().save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.broken(path, "broken image.*replace or remove it")

    def test_zero_bytes_text_folder_or_nothing(self, tmp_path):
        (tmp_path / "a.jpg").touch()
        self.broken(tmp_path / "a.jpg", "the file is empty — replace or remove it")
        (tmp_path / "b.jpg").write_text("<html>404</html>")
        self.broken(tmp_path / "b.jpg", "Pillow cannot read this image")
        self.broken(tmp_path, "a folder")
        self.broken(tmp_path / "c.jpg", "no such image")

    def test_floating_point(self, tmp_path):
        Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
        self.broken(tmp_path / "a.tif", "floating-point")

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    @pytest.mark.parametrize("limit", [2000, 4000])
    def test_decompression_bomb(self, tmp_path, monkeypatch, limit):
        image().save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # of 5400: beyond Pillow's error and its warning
        self.broken(tmp_path / "a.png", "too large")

    def test_bomb_after_resizing(self, tmp_path):
        Image.new("1", (1_000_000, 2)).save(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"a.png: 1000000 x 2 pixels is too narrow"):
            transform(224)(tmp_path / "a.png")

    def test_bad_exif_or_profile_is_no_obstacle(self, tmp_path):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        image().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00garbage", icc_profile=profile[:40])
        plain = io.BytesIO()
        image().save(plain, "jpeg")
        np.testing.assert_array_equal(self.pixels(tmp_path / "a.jpg"), np.asarray(Image.open(plain)))

    def test_upright_leaves_the_given_image(self):
        given = image()
        copy = given.copy()
        upright_rgb(given)
        assert given == copy
        assert ImageOps.exif_transpose(given) == copy


@pytest.mark.real_data
def test_mobilenet_knows_a_bird(real_data):
    backbone = Backbone(
        BackboneSpec(
            "mobilenetv2_100",
            weights=str(real_data / "weights" / "mobilenetv2_100_imagenet.safetensors"),
            options={"pad_type": "same", "num_classes": 1000},
            mean=HALF,
            std=HALF,
        )
    )
    folder = real_data / "cub50" / "images" / "012.Yellow_headed_Blackbird"
    pixels = torch.stack([backbone.transform(p) for p in sorted(folder.iterdir())[:8]])
    with torch.inference_mode():
        (regions,) = backbone(pixels)
        classes = backbone.model.classifier(regions.mean(1)).argmax(1)
    assert regions.shape == (8, 49, 1280)
    assert ((classes >= 7) & (classes <= 146)).all()  # ImageNet's birds are 7 to 24 and 80 to 146


def test_regions_of_bytes_a_few_at_a_time(monkeypatch):
    backbone = Backbone(BackboneSpec("test_resnet", stages=("final", 2), image_size=64, weights="random"))
    cropped = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = backbone(backbone.transform.normalized(cropped))
    sizes = []
    backbone.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    for pixels, parts in ((10**9, [5]), (2 * 64 * 64, [2, 2, 1]), (1, [1] * 5)):
        monkeypatch.setattr("unseen.backbones.backbone._CPU_PIXELS", pixels)
        sizes.clear()
        found = backbone.regions(cropped)
        assert sizes == parts
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.shape == theirs.shape
            assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_weights_of_the_package_are_found_wherever_it_is_installed():
    drawn = default_backbone("fieldguide")
    assert str(Path(unseen.__file__).parent) not in json.dumps(drawn.to_json())
    assert drawn.fingerprint() == replace(drawn, weights=str(BACKBONE["weights"])).fingerprint()
    with pytest.raises(UnseenError, match=r"unseen/fieldguide/gone\.safetensors: no such weights file"):
        replace(drawn, weights="unseen:fieldguide/gone.safetensors").fingerprint()
