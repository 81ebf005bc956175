"""Recipes: schedules against torch's and the paper's formula; settings and their errors."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squeezekit.errors import InputError
from squeezekit.training import recipe as recipes
from squeezekit.training.recipe import Augmentation, Recipe, learning_rate, with_settings


def rates(recipe, steps, steps_an_epoch=10):
    return [learning_rate(recipe, step, steps, steps_an_epoch) for step in range(steps)]


def torch_rates(make, steps, rate):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_the_papers_schedule():
    # solver.prototxt: base_lr 0.04, lr_policy "poly", power 1, max_iter 170000.
    recipe = recipes.paper()
    for iteration in (0, 1, 1_000, 85_000, 169_999):
        expected = 0.04 * (1 - iteration / 170_000) ** 1.0
        assert learning_rate(recipe, iteration, 170_000, 2_502) == pytest.approx(expected)
    assert learning_rate(recipe, 0, 170_000, 2_502) == 0.04
    assert learning_rate(recipe, 85_000, 170_000, 2_502) == pytest.approx(0.02)
    assert learning_rate(recipe, 170_000, 170_000, 2_502) == 0.0
    assert (recipe.batch, recipe.momentum, recipe.weight_decay) == (512, 0.9, 2e-4)
    assert (recipe.optimizer, recipe.nesterov, recipe.warmup_epochs) == ("sgd", False, 0)
    assert (recipe.label_smoothing, recipe.clip_norm, recipe.ema) == (0, None, 0)
    assert recipe.epochs * 1_281_167 // 512 == pytest.approx(170_000, rel=0.01)
    assert recipe.augmentation == Augmentation(crop=True, mirror=True)
    assert recipe.variant == "caffe"


def test_linear_is_that_of_torch():
    recipe = Recipe(epochs=5, learning_rate=0.3, schedule="linear")
    scheduler = lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 50)  # noqa: E731
    assert rates(recipe, 50) == pytest.approx(torch_rates(scheduler, 50, 0.3))


def test_cosine_is_that_of_torch():
    recipe = Recipe(epochs=5, learning_rate=0.3, schedule="cosine")
    scheduler = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50)  # noqa: E731
    assert rates(recipe, 50) == pytest.approx(torch_rates(scheduler, 50, 0.3))


def test_constant_stays():
    assert set(rates(Recipe(epochs=1, learning_rate=0.3, schedule="constant"), 20)) == {0.3}


def test_warmup_rises_evenly_to_the_rate_and_the_schedule_follows():
    recipe = Recipe(epochs=5, learning_rate=1.0, schedule="linear", warmup_epochs=0.4)
    found = rates(recipe, 50)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5:] == pytest.approx([1 - i / 46 for i in range(1, 46)])


@given(
    st.sampled_from(["linear", "cosine", "constant"]),
    st.floats(0, 4),
    st.integers(1, 20),
    st.integers(1, 6),
)
def test_rates_stay_between_zero_and_the_greatest(schedule, warmup, steps_an_epoch, epochs):
    recipe = Recipe(epochs=epochs, learning_rate=0.1, schedule=schedule, warmup_epochs=warmup)
    found = rates(recipe, epochs * steps_an_epoch, steps_an_epoch)
    assert all(0 < rate <= 0.1 for rate in found)
    top = found.index(max(found))
    assert found[:top] == sorted(found[:top])
    assert found[top:] == sorted(found[top:], reverse=True)


def test_settings_take_the_type_of_their_field():
    changed = with_settings(
        recipes.plain(),
        [
            *("epochs=3", "learning_rate=1e-3", "mirror=no", "pad=2"),
            *("clip_norm=none", "optimizer=adam", "precision=fp16", " keep = best "),
        ],
    )
    assert changed == dataclasses.replace(
        recipes.plain(),
        epochs=3,
        learning_rate=1e-3,
        augmentation=Augmentation(mirror=False, pad=2),
        clip_norm=None,
        optimizer="adam",
        precision="fp16",
        keep="best",
    )


def test_no_settings_change_nothing():
    assert with_settings(recipes.finetune(), []) == recipes.finetune()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learning_rat=1", "did you mean learning_rate"),
        ("mirorr=1", "did you mean mirror"),
        ("xyzzy=1", "there are epochs"),
        ("augmentation=1", "no setting 'augmentation'"),
        ("epochs", "key=value"),
        ("epochs=3.5", "epochs must be a whole number"),
        ("epochs=-1", "epochs must not be negative"),
        ("batch=0", "batch must be at least 1"),
        ("learning_rate=fast", "learning_rate must be a number"),
        ("learning_rate=nan", "learning_rate must be finite"),
        ("learning_rate=0", "learning_rate must be above 0"),
        ("momentum=1", "momentum must be"),
        ("precision=bf8", "precision must be float32 or bf16 or fp16"),
        ("nesterov=perhaps", "nesterov must be true or false"),
        ("schedule=step", "schedule must be linear or cosine or constant"),
        ("optimizer=lion", "optimizer must be sgd or adam"),
        ("clip_norm=0", "clip_norm must be above 0"),
        ("pad=-1", "pad must not be negative"),
        ("resized_crop=1.5", "resized_crop must be 0 to 1"),
        ("randaugment=-1", "randaugment must not be negative"),
        ("magnitude=31", "magnitude must be 0 to 30"),
        ("mixup=-0.1", "mixup must not be negative"),
        ("mixupp=1", "did you mean mixup"),
        ("variant=bn", "variant must be plain or modern or caffe"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(setting, message):
    with pytest.raises(InputError, match=message):
        with_settings(Recipe(epochs=1), [setting])


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match="nesterov needs a momentum"):
        Recipe(epochs=1, momentum=0.0, nesterov=True)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_presets_have_names(name):
    assert recipes.named(name) == getattr(recipes, name)()


def test_an_unknown_recipe_is_an_error():
    with pytest.raises(InputError, match="did you mean finetune"):
        recipes.named("finetun")
