"""Methods, presets and settings by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unseen.errors import UnseenError
from unseen.methods import METHODS, ClassSpace, create_method, find_method, find_preset
from unseen.methods.eszsl import ESZSLSettings
from unseen.methods.msdn import MSDN, MSDNSettings
from unseen.methods.settings import EndToEndRecipe, Recipe, change_recipe


def refused(text):
    return pytest.raises(UnseenError, match=text)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("msdm", 'did you mean "msdn"'),
        ("MSDN", 'did you mean "msdn"'),
        ("ezsl", 'did you mean "eszsl"'),
        ("globl", 'did you mean "global"'),
        ("transformer", "use one of ale, anchored, auto, clip"),
    ],
)
def test_unknown_methods_suggest_near_ones(name, suggestion):
    with refused(f'no method "{name}" — {suggestion}'):
        find_method(name)


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_complete(name):
    method = find_method(name)
    assert method.name == name
    assert all(vars(method.card).values())
    assert all(preset.source for preset in method.presets.values())
    channels = 6 if method.stages == 1 else (6,) * method.stages
    made = create_method(name, channels=channels, vectors=torch.randn(3, 4, dtype=torch.float64))
    assert isinstance(made, method)
    assert made.settings == next(iter(method.presets.values())).settings
    assert isinstance(made.settings, method.settings_class)
    for preset in method.presets.values():
        assert (preset.recipe is None) == method.closed_form
        assert isinstance(preset.recipe, EndToEndRecipe) == method.end_to_end
    numbers = [tensor for tensor in made.state_dict().values() if tensor.numel() > 1]  # preparations are not fitted yet
    assert all(tensor.dtype == torch.float64 for tensor in numbers)


# The release's settings
TABLE = {
    # momentum, sampler, images a step, epochs, lambda_cal, lambda_dis, a1 and a2, renormalised
    "cub": (0.9, "random", 50, 30, 0.1, 1e-3, (0.9, 0.1), False),
    "sun": (0.9, "classes", 50, 70, 1e-4, 1e-2, (0.7, 0.3), False),
    "awa2": (0.0, "classes", 40, 50, 0.12, 1e-7, (1.0, 0.0), True),
}


@pytest.mark.parametrize("dataset", TABLE)
def test_presets_are_the_release(dataset):
    momentum, sampler, batch, epochs, cal, dis, fusion, renormalize = TABLE[dataset]
    name, preset = find_preset(MSDN, dataset)
    assert name == dataset
    assert preset.settings == MSDNSettings(
        subnets="both",
        distillation="released",
        lambda_cal=cal,
        lambda_dis=dis,
        fusion=fusion,
        renormalize_vectors=renormalize,
        clip_negative=dataset == "awa2",
        margin=1.0,
    )
    recipe = preset.recipe
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.momentum) == ("rmsprop", 1e-4, 1e-4, momentum)
    assert (recipe.sampler, recipe.batch_size, recipe.epochs) == (sampler, batch, epochs)
    assert (recipe.step_images or recipe.batch_size) == 50  # steps = images * epochs // 50
    assert set(MSDN.presets) == {*TABLE, "recommended"}


def test_which_preset_is_taken():
    assert find_preset(MSDN, "SUN")[0] == "sun"
    assert find_preset(MSDN, "my birds")[0] == "recommended"
    assert find_preset(MSDN, "sun", "awa2")[0] == "awa2"
    with refused('msdn has no preset "apy" — use one of cub, sun, awa2, recommended'):
        find_preset(MSDN, "sun", "apy")


def test_a_method_of_a_preset():
    made = create_method("msdn", channels=4, vectors=torch.rand(5, 3), preset="sun", lambda_cal=0.5)
    assert made.settings == MSDN.presets["sun"].settings.changed(MSDN.presets["sun"].settings, {"lambda_cal": 0.5})
    assert create_method("msdn", channels=4, vectors=torch.rand(5, 3)).settings == MSDN.presets["cub"].settings
    with refused('msdn has no preset "flo"'):
        create_method("msdn", channels=4, vectors=torch.rand(5, 3), preset="flo")
    with refused("msdn: settings and a preset — pass one of them"):
        create_method("msdn", channels=4, vectors=torch.rand(5, 3), preset="sun", settings=MSDNSettings())


def test_numbers_of_numpy_make_the_same_method():
    vectors = np.random.default_rng(0).random((5, 3))
    made = create_method("msdn", channels=np.int64(4), vectors=vectors, seed=np.int32(2), lambda_cal=np.float64(0.5))
    same = create_method("msdn", channels=4, vectors=vectors, seed=2, lambda_cal=0.5)
    assert made.settings == same.settings
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), same.parameters(), strict=True))
    with refused("channels is 4.5 — use a whole number, 1 or more"):
        create_method("msdn", channels=4.5, vectors=vectors)


def test_settings_from_text():
    base = MSDN.presets["sun"].settings
    changed = MSDNSettings.changed(
        base, {"lambda_cal": "0.5", "fusion": "0.25, 0.75", "renormalize_vectors": "Yes", "subnets": "a2v"}
    )
    assert changed == MSDNSettings(
        lambda_cal=0.5, lambda_dis=1e-2, fusion=(0.25, 0.75), renormalize_vectors=True, subnets="a2v"
    )
    assert MSDNSettings.changed(changed, {"renormalize_vectors": "0"}).renormalize_vectors is False
    assert MSDNSettings.changed(base, {}) == base == MSDN.presets["sun"].settings


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lambda": "1"}, 'no setting "lambda" — did you mean "lambda_'),
        ({"lambda_cal": "much"}, 'setting lambda_cal: "much" has the wrong type — use a number'),
        ({"lambda_cal": "nan"}, 'setting lambda_cal: "nan" has the wrong type'),
        ({"fusion": "inf,1"}, 'setting fusion: "inf,1" has the wrong type'),
        ({"fusion": "1"}, 'setting fusion: "1" has the wrong type — use 2 values, comma-separated'),
        ({"fusion": "1,2,3"}, 'setting fusion: "1,2,3" has the wrong type'),
        ({"fusion": "0,0"}, "setting fusion: both sub-nets have weight 0"),
        (
            {"renormalize_vectors": "maybe"},
            'setting renormalize_vectors: "maybe" has the wrong type — use true or false',
        ),
        ({"subnets": "all"}, 'setting subnets: "all" is not a valid choice — use one of both, a2v, v2a'),
    ],
)
def test_wrong_settings_are_refused(changes, text):
    with refused(text):
        MSDNSettings.changed(MSDNSettings(), changes)


def test_a_method_without_settings_has_none_to_change():
    with refused('no setting "gamma"'):
        ESZSLSettings.changed(ESZSLSettings(), {"gamma": "1"})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": "0"}, "epochs is 0 — use 1 or more"),
        ({"batch_size": "-3"}, "batch_size is -3 — use 1 or more"),
        ({"epochs": "2.5"}, 'recipe entry epochs: "2.5" has the wrong type — use a whole number'),
        ({"lr": "-1"}, "lr is -1.0 — use 0 or more"),
        ({"weight_decay": "-1e-4"}, "weight_decay is -0.0001 — use 0 or more"),
        ({"optimizer": "lion"}, 'setting optimizer: "lion" is not a valid choice — use one of rmsprop, sgd, adamw'),
        ({"sampler": "pairs"}, 'setting sampler: "pairs" is not a valid choice — use one of random, classes'),
        ({"rate": "1"}, 'no recipe entry "rate"'),
        ({"flip": "true"}, 'no recipe entry "flip"'),  # these are read once, without augmentation
        ({"shots": "2"}, "2 shots with independent images — pass sampler=classes"),
        ({"sampler": "classes", "batch_size": "9", "shots": "2"}, "recipe: batch_size 9 is not a multiple of 2 shots"),
    ],
)
def test_wrong_recipes_are_refused(changes, text):
    with refused(text):
        change_recipe(Recipe(), changes)


def test_recipes_from_text():
    assert change_recipe(Recipe(), {"epochs": "7", "lr": "1e-2", "optimizer": "sgd"}) == Recipe(
        epochs=7, lr=1e-2, optimizer="sgd"
    )


def test_recipes_of_images():
    base = EndToEndRecipe()
    assert change_recipe(base, {"flip": "no", "resize": "1.5"}) == EndToEndRecipe(flip=False, resize=1.5)
    with refused("resize is 0.5 — use 1 to 4 times the input size"):
        change_recipe(base, {"resize": "0.5"})
    last = change_recipe(base, {"layers": "last", "views": "2"})
    for wrong in ({"layers": "all"}, {"batch_norm": "batch"}, {"views": "-1"}):
        with refused("use 0, or 1 or more together with layers=last and batch_norm=frozen"):
            change_recipe(last, wrong)
    with refused("warm_up is 1.0"):
        change_recipe(base, {"warm_up": "1"})


def test_the_learning_rate_rises_and_falls_over_all_steps():
    recipe = EndToEndRecipe(lr=8.0, warm_up=0.25, lr_factor=0.1)
    rates = [recipe.lr_at(1 + step // 4, step, 16) for step in range(16)]
    assert rates[:4] == [2, 4, 6, 8]
    assert rates[4] == 8
    assert rates[10] == pytest.approx(4)  # half way down
    assert rates[7] == pytest.approx(8 * 0.8535533905932737)  # (1 + cos 45 degrees) / 2
    assert 0 < rates[15] < 0.2
    assert EndToEndRecipe(lr=8.0, lr_factor=0.1).lr_at(2, 5, 16) == pytest.approx(0.8)


def test_learning_rate_of_an_epoch():
    recipe = Recipe(lr=0.5, lr_factor=0.1, lr_every=3)
    assert [recipe.lr_of(e) for e in range(1, 8)] == pytest.approx([0.5] * 3 + [0.05] * 3 + [0.005])
    assert Recipe(lr=0.25).lr_of(30) == 0.25
    early = Recipe(lr=0.5, lr_factor=0.1, lr_every=3, lr_early=1)
    assert [early.lr_of(e) for e in range(1, 7)] == pytest.approx([0.5] * 2 + [0.05] * 3 + [0.005])


@pytest.mark.parametrize(
    ("name", "kind"), [("rmsprop", torch.optim.RMSprop), ("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)]
)
def test_optimizers(name, kind):
    trained, frozen = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), requires_grad=False)
    made = Recipe(optimizer=name, lr=0.25, weight_decay=0.5, momentum=0.75).make_optimizer(iter([trained, frozen]))
    assert type(made).__bases__ == (kind,)  # without marks for the compiler
    (group,) = made.param_groups
    assert group["params"] == [trained]
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0.75)) == (0.25, 0.5, 0.75)


def test_sgd_is_the_plain_one_to_the_bit_where_passes_reach_other_parameters():
    generator = torch.Generator().manual_seed(0)
    recipe, found = Recipe(optimizer="sgd", lr=0.1, weight_decay=0.01, momentum=0.9), []
    start, gradients = torch.randn(3, 9, generator=generator), torch.randn(4, 3, 9, generator=generator)
    for fused in (True, False):
        weights = [torch.nn.Parameter(row.clone()) for row in start]
        plain = torch.optim.SGD(weights, lr=0.1, weight_decay=0.01, momentum=0.9, foreach=False)
        made = recipe.make_optimizer(iter(weights)) if fused else plain
        for reached, rows in zip(((0,), (0, 1), (1, 2), (0, 1, 2)), gradients, strict=True):
            made.zero_grad(set_to_none=True)
            for i in reached:
                weights[i].grad = rows[i].clone()
            made.step()
        found.append(torch.stack([w.detach() for w in weights]))
    assert torch.equal(*found)


def test_class_space_first_used_in_inference_mode_can_still_train():
    classes = ClassSpace(torch.rand(3, 2), torch.tensor([True, True, False]))
    with torch.inference_mode():
        assert classes.unit.shape == (3, 2)
    weight = torch.ones(2, requires_grad=True)
    (classes.unit @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, classes.unit.sum(dim=0))
