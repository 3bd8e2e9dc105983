"""Maps of one task, and the scores that say whether to believe them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agr_lab.reports.face_regions import REGIONS, face_regions, region_areas, region_shares
from agr_lab.reports.map_report import read_report, report_maps, summarize_report, write_report
from agr_lab.reports.road import road
from agr_utils.data.load import FaceData
from agr_utils.data.synthetic import draw_faces
from agr_utils.errors import InputError
from agr_utils.inside.explain import METHODS, explain, explained_score, map_layers, map_side, target_layer
from agr_utils.inside.map_plots import cue_table, plot_cue_maps
from agr_utils.inside.map_scores import (
    centred_map,
    energy_inside,
    pointing_hit,
    random_maps,
    randomise_weights,
    rank_correlation,
)
from agr_utils.inside.map_tables import RIVALS
from agr_utils.models.backbones import BACKBONES
from agr_utils.models.network import MultiTaskNet
from agr_utils.training.batches import load_pixels

SIZE = 32


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> MultiTaskNet:
    torch.manual_seed(0)
    return MultiTaskNet("custom_cnn", "synthetic").eval()


class CornerNet(MultiTaskNet):
    """Its race is told by the brightness of the upper left quarter, its gender by that of the lower right one."""

    def __init__(self):
        super().__init__("custom_cnn", "synthetic", dropout=0.0)
        self.backbone, self.backbone_name = CornerFeatures(), "custom_cnn"
        with torch.no_grad():
            for task, row in (("race", 0), ("gender", 1)):
                self.heads[task] = nn.Linear(2, self.scheme.num_outputs(task))
                self.heads[task].weight.zero_()
                self.heads[task].bias.zero_()
                self.heads[task].weight[1, row] = 5.0
            self.heads["age"] = nn.Linear(2, 117)


class CornerFeatures(nn.Module):
    """Two means of a map: of its upper left quarter, and of its lower right one."""

    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(nn.AvgPool2d(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stages(x)).mean(dim=1)  # (B, H/4, W/4)
        half = x.shape[-1] // 2
        return torch.stack([x[:, :half, :half].mean(dim=(1, 2)), x[:, half:, half:].mean(dim=(1, 2))], dim=1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_architecture_has_maps_of_every_task_and_kind(backbone: str, images: Tensor):
    model = MultiTaskNet(backbone, "synthetic")
    for task in model.tasks:
        for method in METHODS:
            maps = explain(model, images, task, method)
            assert maps.shape == (3, SIZE, SIZE) and maps.dtype == torch.float32
            assert maps.isfinite().all() and maps.min() >= 0 and maps.max() <= 1
    assert target_layer(model, SIZE) == map_layers(model, SIZE)[SIZE // 4]


def test_a_map_finds_what_the_answer_depends_on():
    model = CornerNet()
    bright = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 0.3 + 0.7
    quarter = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    quarter[: SIZE // 2, : SIZE // 2] = True
    race = explain(model, bright, "race", "hirescam", "stages")
    gender = explain(model, bright, "gender", "hirescam", "stages")
    assert energy_inside(race, quarter).min() > 0.8 and energy_inside(gender, quarter.flip(0, 1)).min() > 0.8
    assert pointing_hit(race, quarter).eq(1).all() and pointing_hit(gender, quarter).eq(0).all()


class ChannelsLast(nn.Module):
    """The features of CornerNet as a layer (B, H, W, C), positions (1, C, H, W) and windows (4 * B, C, h, w)."""

    def __init__(self):
        super().__init__()
        self.stages, self.turned, self.windows = nn.AvgPool2d(4), nn.Identity(), nn.Identity()
        self.positions = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.turned(self.stages(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + 0 * self.positions(torch.ones(1, *x.shape[1:]))
        half = x.shape[-1] // 2
        self.windows(x.reshape(-1, 3, half, half))  # as a layer that looks at parts by themselves
        x = torch.relu(x).mean(dim=1)
        return torch.stack([x[:, :half, :half].mean(dim=(1, 2)), x[:, half:, half:].mean(dim=(1, 2))], dim=1)


def test_a_layer_whose_channels_come_last_has_the_same_maps(images: Tensor):
    model = CornerNet()
    model.backbone = ChannelsLast()
    oblong = torch.rand(2, 3, 2 * SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    for batch in (images, oblong):
        for method in METHODS:
            maps = [explain(model, batch, "race", method, layer) for layer in ("stages", "turned")]
            assert maps[0].max() > 0 and torch.allclose(*maps, atol=1e-5)
    assert map_layers(model, SIZE) == {SIZE // 4: "turned"}


def test_a_layer_that_shows_no_image_is_refused(images: Tensor):
    model = CornerNet()
    model.backbone = ChannelsLast()
    for batch in (images, images[:1]):
        with pytest.raises(InputError, match="'positions' takes no part in what is made of the image"):
            explain(model, batch, "race", layer="positions")
        with pytest.raises(InputError, match=r"'windows' has no map \(its output is \(4, 3, 4, 4\)"):
            explain(model, batch, "race", layer="windows")


def test_explaining_leaves_the_model_as_it_was(model: MultiTaskNet, images: Tensor):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        first = explain(model, images, "age")
    assert torch.equal(first, explain(model, images, "age"))
    assert torch.allclose(first[:1], explain(model, images[:1], "age"), atol=1e-5)  # other images do not matter
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_grad_cam_and_hirescam_are_the_same_before_global_pooling(model: MultiTaskNet, images: Tensor):
    maps = [explain(model, images, "race", method, "stages") for method in ("gradcam", "hirescam")]
    assert torch.allclose(*maps, atol=1e-4)


def test_tasks_differ_and_eigencam_knows_of_none(model: MultiTaskNet, images: Tensor):
    assert not torch.allclose(explain(model, images, "age"), explain(model, images, "race"), atol=0.05)
    assert torch.equal(explain(model, images, "age", "eigencam"), explain(model, images, "race", "eigencam"))


def test_a_constant_image_has_a_zero_map_and_a_warning(model: MultiTaskNet, images: Tensor):
    batch = torch.cat([images[:1], torch.full((1, 3, SIZE, SIZE), 0.5)])
    for method in METHODS:
        with pytest.warns(UserWarning, match="1 of 2 images are constant"):
            maps = explain(model, batch, "gender", method)
        assert maps[0].max() > 0 and maps[1].eq(0).all() and maps.isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(model, images, "gender")


def test_bad_input_is_named(model: MultiTaskNet, images: Tensor):
    with pytest.raises(InputError, match="no head for race. It answers: age"):
        explain(MultiTaskNet("custom_cnn", "synthetic", ["age"]), images, "race")
    with pytest.raises(InputError, match="no layer 'stage.0' in the backbone. Did you mean: stages"):
        explain(model, images, "age", layer="stage.0")
    with pytest.raises(
        InputError, match=r"layer 'stages.0.1.attention.squeeze' has no map \(its output is \(1, 12, 1, 1\)"
    ):
        explain(model, images, "age", layer="stages.0.1.attention.squeeze")
    for wrong in ((images * 255).to(torch.uint8), images.double(), images[0], images[:0], images * 255, images / 0):
        with pytest.raises(InputError, match="expected .B, 3, H, W. float32 in .0, 1."):
            explain(model, wrong, "age")
    for wrong, kind in ((images.numpy(), "ndarray"), (list(images), "list")):
        with pytest.raises(InputError, match=f"images are {kind}; expected"):
            explain(model, wrong, "age")
    with pytest.raises(InputError, match="Choose one of: stem, stages"):
        explain(model, images, "age", layer="zzz")
    with pytest.raises(InputError, match="layer 'unused' takes no part in what is made of the image"):
        spare = MultiTaskNet("custom_cnn", "synthetic")
        spare.backbone.unused = nn.Conv2d(3, 3, 1)
        explain(spare, images, "age", layer="unused")
    with pytest.raises(InputError, match="unknown kind of map 'scorecam'"):
        explain(model, images, "age", "scorecam")
    assert all(parameter.requires_grad for parameter in model.parameters())  # also after an error


@pytest.mark.parametrize(
    "dtype, name", [(torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float64, "float64")]
)
def test_a_model_of_another_precision_is_named(images: Tensor, dtype: torch.dtype, name: str):
    model = MultiTaskNet("custom_cnn", "synthetic").to(dtype)
    with pytest.raises(InputError, match=f"backbone.* is {name}. Maps need float32: model.float()"):
        explain(model, images, "age")
    mixed = MultiTaskNet("custom_cnn", "synthetic")
    mixed.heads["age"].to(dtype)
    with pytest.raises(InputError, match=f"the model's heads.age.weight is {name}"):
        explain(mixed, images, "age")


def test_what_breaks_in_the_network_is_not_blamed_on_the_layer(model: MultiTaskNet, images: Tensor):
    def fail(module: nn.Module, inputs: tuple) -> None:
        raise RuntimeError("out of order")

    with model.backbone.stem.register_forward_pre_hook(fail), pytest.raises(RuntimeError, match="out of order"):
        explain(model, images, "age")


def test_layers_within_a_block_can_be_explained_too(model: MultiTaskNet, images: Tensor):
    for layer in ("stem.0.1", "stages.1.1.second"):  # an activation that works in place follows
        maps = explain(model, images, "age", layer=layer)
        assert torch.allclose(maps, grad_cam_by_hand(model, images, layer), atol=1e-4), layer


def grad_cam_by_hand(model: MultiTaskNet, images: Tensor, layer: str) -> Tensor:
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    with model.backbone.get_submodule(layer).register_forward_hook(keep):
        score = explained_score(model, images, "age")
    gradient = torch.autograd.grad(score.sum(), kept[0])[0]
    maps = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1)).detach()
    larger = torch.nn.functional.interpolate(_stretch(maps)[:, None], size=images.shape[2:], mode="bilinear")[:, 0]
    return _stretch(larger)


def _stretch(maps: Tensor) -> Tensor:
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-7)


def test_gradients_that_are_being_accumulated_are_kept(model: MultiTaskNet, images: Tensor):
    weight = next(model.parameters())
    weight.grad = torch.ones_like(weight)
    explain(model, images, "age")
    assert weight.grad is not None and weight.grad.eq(1).all()
    weight.grad = None


def test_a_layer_of_another_resolution_has_noise_as_coarse_as_itself(model: MultiTaskNet):
    assert map_side(model, "stages.2", SIZE) == map_side(model, "stages", SIZE) == 2
    with pytest.raises(InputError, match="no layer 'stage'"):
        map_side(model, "stage", SIZE)


def test_energy_and_pointing_of_known_maps():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2, :2] = True
    maps = torch.zeros(3, 4, 4)
    maps[0, 0, 0], maps[0, 3, 3] = 0.75, 0.25
    maps[1] = 1.0
    assert energy_inside(maps, mask).tolist() == pytest.approx([0.75, 0.25, 0.25])  # uniform and zero: the area
    assert pointing_hit(maps, mask).tolist() == pytest.approx([1, 0.25, 0.25])


def test_rank_correlation_of_known_maps():
    first = torch.arange(16.0).reshape(1, 4, 4)
    pairs = torch.cat([first.exp(), -first, torch.ones(1, 4, 4)])
    assert rank_correlation(first.expand(3, -1, -1), pairs).tolist() == pytest.approx([1, -1, 0])


def test_rivals_know_nothing():
    blob = centred_map(8, 8)
    assert blob.max() == 1 and torch.equal(blob, blob.flip(0)) and blob[3, 3] > blob[0, 0]
    noise = random_maps(200, 4, 16, 16)
    assert noise.shape == (200, 16, 16) and torch.equal(noise, random_maps(200, 4, 16, 16))
    mean = noise.mean(dim=0)
    assert (mean.max() - mean.min()) / mean.mean() < 0.5  # no place is preferred


def test_road_tells_a_map_of_what_matters_from_its_opposite():
    model = CornerNet().eval()
    images = torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 0.2
    images[:, :, 4:12, 4:12] = 1.0
    right = torch.zeros(6, SIZE, SIZE)
    right[:, 4:12, 4:12] = 1
    scores, opposite = road(model, images, right), road(model, images, 1 - right)
    assert scores["race"].min() > 0.02 and opposite["race"].max() < 0
    assert torch.equal(road(model, images, right)["race"], scores["race"])  # the same seed, the same numbers
    zeros = road(model, images, torch.zeros(6, SIZE, SIZE))["race"]  # ties: a tenth is removed, not everything
    assert zeros.abs().mean() < scores["race"].mean() / 2


def test_maps_of_a_randomised_network_fall_apart(model: MultiTaskNet, images: Tensor):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps = explain(model, images, "age")
    names, values = [], []
    for name, changed in randomise_weights(model, seed=5):
        names.append(name)
        values.append(rank_correlation(maps, explain(changed, images, "age")).mean())
    assert names == ["heads", "backbone.stages.2", "backbone.stages.1", "backbone.stages.0", "backbone.stem"]
    assert values[-1] < 0.9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    weights = [name for name, _ in model.named_parameters() if name.endswith("weight") and before[name].ndim > 1]
    assert len(weights) > 10 and not any(torch.equal(changed.state_dict()[name], before[name]) for name in weights)


def test_a_mirror_image_of_a_symmetric_network_has_the_mirrored_map(images: Tensor):
    model = CornerNet().eval()
    symmetric = images + images.flip(3)
    maps = explain(model, symmetric / 2, "race", "hirescam", "stages")
    mirrored = explain(model, symmetric.flip(3) / 2, "race", "hirescam", "stages").flip(2)
    same = rank_correlation(maps.flip(2), mirrored)
    assert same.tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_regions_cover_the_face():
    regions = face_regions(64, 64)
    assert set(regions.unique().tolist()) == set(range(len(REGIONS)))
    assert torch.equal(regions, regions.flip(1)) and region_areas(64, 64).sum() == 1
    assert REGIONS[regions[18, 18]] == "eyes" and REGIONS[regions[45, 32]] == "mouth and jaw"
    shares = region_shares(torch.stack([torch.ones(64, 64), torch.zeros(64, 64)]))
    assert torch.allclose(shares[0], region_areas(64, 64)) and shares[1].isnan().all()


def test_a_report_on_drawn_faces_is_read_back_as_it_was(tmp_path: Path):
    drawn = draw_faces(60, SIZE, seed=1, with_masks=True)
    torch.manual_seed(0)
    model, other = (MultiTaskNet("custom_cnn", "synthetic").eval() for _ in range(2))
    data = FaceData(drawn.faces, drawn.pixels, model.scheme)
    report = report_maps(model, data, num_scored=12, other=other, drawn=drawn)
    scores = report.tables["scores"]
    assert len(scores) == 12 * 3 * 5 and set(scores["kind"]) == {*METHODS, *RIVALS}
    assert scores[["energy", "hit", "collar"]].notna().all(axis=None)
    assert scores.loc[scores["kind"] == "gradcam", "seeds"].between(-1, 1).all()
    assert report.tables["layers"]["side"].unique().tolist() == [8, 4, 2]
    assert np.stack(report.tables["mean_maps"]["map"]).sum(axis=1) == pytest.approx(1, abs=1e-3)
    write_report(report, tmp_path / "maps")
    again = read_report(tmp_path / "maps")
    assert again.about == report.about and np.array_equal(again.mean_face, report.mean_face)
    assert np.allclose(again.tables["scores"]["energy"], scores["energy"], atol=1e-6)
    (tmp_path / "maps" / "scores.parquet").unlink()
    with pytest.raises(InputError, match="damaged .no scores.parquet"):
        read_report(tmp_path / "maps")
    with pytest.raises(InputError, match="no maps. Make them with: agr explain"):
        read_report(tmp_path / "run" / "maps")


def test_a_report_on_aligned_faces(tmp_path: Path, data: FaceData):
    torch.manual_seed(0)
    model = MultiTaskNet("custom_cnn", "synthetic", ["age", "race"]).eval()
    report = report_maps(model, data, num_scored=8, num_mean=20)
    scores = report.tables["scores"].set_index(["task", "kind", "image_id"])
    assert len(scores) == 8 * 2 * 5 and scores["road"].notna().all()
    assert scores.loc[("age", "gradcam"), "randomised"].between(-1, 1).all()
    assert scores.loc[("age", "random"), "randomised"].isna().all()
    alone = road(model, *maps_of_first(model, data), seed=0)["race"]  # the same as when it is asked for alone
    kept = scores.loc[("race", "eigencam"), "road"].to_numpy()
    assert np.allclose(kept, alone, atol=1e-5)
    assert report.tables["cascade"]["part"].iloc[-1] == "backbone.stem"
    regions = report.tables["regions"]
    assert np.allclose(regions[list(REGIONS)].dropna().sum(axis=1), 1, atol=1e-3)
    assert report.mean_face.shape == (SIZE, SIZE, 3)
    assert summarize_report(report).loc[("age", "gradcam"), "road"] == pytest.approx(
        scores.loc[("age", "gradcam"), "road"].mean(), abs=1e-3
    )
    write_report(report, tmp_path / "maps")
    assert np.array_equal(read_report(tmp_path / "maps").mean_face, report.mean_face)


def maps_of_first(model: MultiTaskNet, data: FaceData) -> tuple[Tensor, Tensor]:
    images = load_pixels(data, data.sample("test", 8))
    return images, explain(model, images, "race", "eigencam")


def test_a_table_of_cues_says_how_far_maps_are_ahead_of_a_blob(model: MultiTaskNet):
    drawn = draw_faces(12, SIZE, seed=2, with_masks=True)
    table = cue_table(model, drawn)
    assert list(table.index) == ["age", "gender", "race"]
    assert ((table["low"] <= table["HiResCAM - Blob"]) & (table["HiResCAM - Blob"] <= table["high"])).all()
    assert table["HiResCAM - Blob"].tolist() == pytest.approx((table["HiResCAM"] - table["Blob"]).tolist(), abs=0.11)
    assert table["Cue's area"].tolist() == pytest.approx([100 * drawn.masks[t].mean() for t in table.index], abs=0.06)
    figure = plot_cue_maps(model, drawn, row=0)
    *panels, key = figure.axes
    titles = [ax.get_title() for ax in panels]
    assert len(titles) == 12 and key.get_ylabel() and titles[0] == "cue of the age" and titles[3].startswith("Blob: ")
    del drawn.masks["race"]
    for use in (cue_table, lambda *given: plot_cue_maps(*given, row=0)):
        with pytest.raises(InputError, match="the set of masks lacks race. There is: "):
            use(model, drawn)
