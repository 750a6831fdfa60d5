"""What the lessons have built: the files of ``lessons/built`` are the cells of the notebooks, and equal the library."""

import ast
from pathlib import Path

import nbformat
import pytest
import torch

import dccrn_lib.lessons.built
from dccrn_lib import build_model, count_parameters, load_model
from dccrn_lib.distillation.at_kl import AttentionTransferKL
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.lessons.built import attention_transfer, streaming
from dccrn_lib.lessons.built import dccrn as built
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.networks.presets import PRESETS
from dccrn_lib.runtime import paths

#: File of ``dccrn_lib/lessons/built`` -> the notebook that writes its classes and functions.
LESSON_OF = {
    "dccrn": "02_dccrn",
    "uformer": "03_uformer",
    "attention_transfer": "04_attention_transfer",
    "distillation": "05_distillation",
    "streaming": "07_streaming_and_export",
}
FOLDER = Path(dccrn_lib.lessons.built.__file__).parent


def definitions(sources: list[str]) -> dict[str, str]:
    """Top-level classes and functions: name -> code without comments and layout; a name defined twice is an error."""
    found: dict[str, str] = {}
    for source in sources:
        for node in ast.parse(source).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                assert node.name not in found, f"{node.name} is defined twice"
                found[node.name] = ast.unparse(node)
    return found


def test_every_file_has_its_lesson():
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} == set(LESSON_OF)


@pytest.mark.parametrize("name", LESSON_OF)
def test_file_is_what_the_lesson_writes(name: str):
    notebook = nbformat.read(paths.notebooks_dir() / f"{LESSON_OF[name]}.ipynb", as_version=4)
    cells = [c.source for c in notebook.cells if "built" in c.metadata.get("tags", [])]
    written, kept = definitions(cells), definitions([(FOLDER / f"{name}.py").read_text(encoding="utf-8")])
    assert kept and set(written) == set(kept)
    for key in kept:
        assert written[key] == kept[key], f"{key} differs between {LESSON_OF[name]} and built/{name}.py"


# ---- lesson 02: the student

MINI = {"channels": (4, 8, 16, 16, 16, 16), "rnn_units": 64}
FULL = {"channels": (16, 32, 64, 128, 128, 128), "rnn_units": 192}
SIZES = {"distil_dccrn": {}, "distil_dccrn_mini": MINI, "distil_dccrn_lookahead0": {"lookahead": 0}}


def wave(samples: int = 4321, batch: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


def pair(preset: str) -> tuple[built.MyStudent, torch.nn.Module]:
    """Both networks from the same seed."""
    torch.manual_seed(0)
    mine = built.MyStudent(**SIZES[preset])
    torch.manual_seed(0)
    return mine, build_model(preset)


@pytest.mark.parametrize("preset", SIZES)
def test_student_starts_like_the_library(preset: str):
    mine, theirs = pair(preset)
    state = mine.state_dict()
    for name, value in theirs.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(state.pop(name), value), name
    assert not state
    assert count_parameters(mine) == count_parameters(theirs)


def test_sizes_are_the_presets():
    for preset, sizes in (("distil_dccrn", FULL), ("distil_dccrn_mini", MINI)):
        assert {key: getattr(PRESETS[preset], key) for key in sizes} == sizes
    assert count_parameters(built.MyStudent()) == 1_126_413


@pytest.mark.parametrize("preset", SIZES)
@pytest.mark.parametrize("samples", [1, 99, 100, 4321])
def test_student_equals_the_library(preset: str, samples: int):
    mine, theirs = (network.eval() for network in pair(preset))
    with torch.no_grad():
        assert torch.allclose(mine(wave(samples)), theirs(wave(samples)), atol=1e-6)


@pytest.mark.parametrize("name", ["distil_dccrn", "distil_dccrn_alone", "distil_dccrn_at_kl"])
def test_shipped_weights_give_the_library_output(name: str):
    with torch.no_grad():
        expected = load_model(name)(wave())
        assert torch.allclose(built.load_shipped(name)(wave()), expected, atol=1e-5)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("preset", ["distil_dccrn_mini", "distil_dccrn_lookahead0"])
def test_training_step_equals_the_library(preset: str):
    target = wave(3200) / 2
    results = []
    for network in pair(preset):
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
        losses = []
        for _ in range(3):
            loss = si_snr_loss(network(wave(3200)), target).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        results.append((losses, network.state_dict()))
    (losses, mine), (expected, theirs) = results
    assert losses == pytest.approx(expected, abs=1e-3) and losses[-1] != losses[0]
    for name, value in mine.items():
        assert torch.allclose(value, theirs[name], atol=2e-4), name


def test_taps_record_the_layers_of_both():
    mine, theirs = (network.eval() for network in pair("distil_dccrn_mini"))
    with FeatureTap(mine) as tap, FeatureTap(theirs) as expected, torch.no_grad():
        mine(wave()), theirs(wave())
    assert list(tap.features) == list(expected.features) and len(tap.features) == 12
    for name, feature in tap.features.items():
        assert torch.allclose(feature, expected.features[name], atol=1e-5), name


def test_stft_equals_the_library():
    theirs, mine = build_model("distil_dccrn_mini").stft, built.MySTFT()
    assert torch.allclose(mine(wave()), theirs(wave()), atol=1e-5)
    assert torch.allclose(mine.inverse(mine(wave()), 4321), wave(), atol=1e-6)


def test_mask_is_bounded_and_its_gradient_is_finite_at_zero():
    mask = torch.zeros(1, 3, 1, dtype=torch.complex64, requires_grad=True)
    built.my_mask(mask, torch.tensor([0, 1, 1j]).reshape(1, 3, 1)).abs().square().sum().backward()
    assert torch.isfinite(torch.view_as_real(mask.grad)).all()
    assert built.my_mask(torch.tensor(9 + 9j), torch.tensor(2 + 0j)).abs() < 2.001


# ---- lesson 07: the student live


def test_stream_equals_the_library_up_to_what_it_owes():
    _, theirs = pair("distil_dccrn_mini")
    mine = built.MyStudent(**MINI)
    mine.load_state_dict(theirs.state_dict(), strict=False)
    x = wave(3000, batch=1)
    with torch.no_grad():
        live = torch.cat(list(streaming.enhance_live(mine.eval(), x[0].split(100))))[300:]
        assert len(live) == 3000 - 900
        assert torch.allclose(live, theirs.eval()(x)[0, :2100], atol=1e-6)


# ---- lesson 04: AT-KL


def features(chan: int, frame: int, batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(chan)
    sizes = {"encoder.0": 16, "encoder.5": 4}
    return {k: torch.randn(batch, chan, f, frame, generator=generator) for k, f in sizes.items()}


@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
@pytest.mark.parametrize(("power", "temperature"), [(2.0, 1.0), (1.0, 1.0), (4.0, 1.0), (2.0, 0.1)])
def test_at_kl_equals_the_library(normalisation: str, power: float, temperature: float):
    options = {"normalisation": normalisation, "power": power, "temperature": temperature}
    student, teacher = features(4, 8), features(6, 5)
    leaves = [{k: v.clone().requires_grad_() for k, v in student.items()} for _ in range(2)]
    losses = [attention_transfer.MyATKL(**options), AttentionTransferKL(**options)]
    (mine, my_layers), (theirs, their_layers) = (loss(s, teacher) for loss, s in zip(losses, leaves, strict=True))
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-4) and mine > 0
    assert {k: v.item() for k, v in my_layers.items()} == pytest.approx(
        {k: v.item() for k, v in their_layers.items()}, rel=1e-4
    )
    mine.backward()
    theirs.backward()
    for k in student:
        assert torch.allclose(leaves[0][k].grad, leaves[1][k].grad, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
@pytest.mark.parametrize("empty", ["student", "teacher", "both", "everything"])
def test_at_kl_of_an_empty_bin_is_finite_and_equals_the_library(normalisation: str, empty: str):
    sides = {"student": features(4, 8), "teacher": features(6, 5)}
    for name in ("student", "teacher") if empty in ("both", "everything") else (empty,):
        for feature in sides[name].values():
            feature[:, :, slice(None) if empty == "everything" else 1] = 0.0
    losses = attention_transfer.MyATKL(normalisation), AttentionTransferKL(normalisation=normalisation)
    mine, theirs = (loss(sides["student"], sides["teacher"])[0] for loss in losses)
    assert torch.isfinite(mine) and mine.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)


def test_at_kl_leaves_the_teacher_alone_and_refuses_an_unknown_normalisation():
    teacher = {k: v.requires_grad_() for k, v in features(6, 5).items()}
    student = {k: v.requires_grad_() for k, v in features(4, 8).items()}
    attention_transfer.MyATKL()(student, teacher)[0].backward()
    assert all(v.grad is None for v in teacher.values()) and all(v.grad is not None for v in student.values())
    with pytest.raises(ValueError, match="'sum' or 'softmax'"):
        attention_transfer.MyATKL("max")(student, teacher)
