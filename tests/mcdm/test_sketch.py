"""Motion tokens drawn where they put the face."""

import dataclasses

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mcdm.config import CodecConfig, MotionConfig
from mcdm.encoders import make_codec
from mcdm.faces import CANON, MOUTH
from mcdm.motion import Motion, motion_sizes
from mcdm.sketch import (
    counted,
    landmarks_of,
    picture_error,
    placed,
    repainted,
    sketch,
    sketch_channels,
)
from tests.mcdm.nano import nano

CODEC = CodecConfig(kind="dct", size_px=64, factor=4, channels=16)
CONFIG = MotionConfig(token_width=8)


class Told:
    """Motion that decodes to what it is told: landmarks as shares of the picture, an even mouth and nothing above."""

    config = CONFIG

    def __init__(self, points, mouth=1.0):
        self.points, self.mouth = torch.as_tensor(points), mouth

    def head_of(self, tokens):
        flat = (self.points - 0.5).flatten().expand(*tokens.shape[:2], 10)
        return torch.cat([flat, torch.zeros(*tokens.shape[:2], 3)], -1)

    def decoded(self, tokens):
        lip, rest = motion_sizes(CONFIG.face_px)
        n = tokens.shape[0] * tokens.shape[1]
        return torch.full((n, lip), self.mouth), torch.zeros(n, rest)


def draw(told, codec=CODEC):
    """The sketch, its picture of motion, and the bells."""
    drawn = sketch(told, codec, torch.zeros(2, 3, CONFIG.tokens, CONFIG.token_width))
    end = codec.factor**2
    return drawn, F.pixel_shuffle(drawn[0, :1, :end], codec.factor)[0, 0], drawn[0, 0, end:]


def test_a_sketch_has_the_latents_size_and_a_channel_per_pixel_and_landmark():
    for codec in (CODEC, CodecConfig(kind="dct", size_px=256, factor=8, channels=48)):
        drawn, _, _ = draw(Told(CANON), codec)
        assert drawn.shape == (2, 3, sketch_channels(codec), codec.latent_px, codec.latent_px)


def test_the_mouth_is_drawn_where_the_landmarks_put_it():
    top, bottom, left, right = MOUTH
    for scale, shift in ((1.0, (0.0, 0.0)), (0.5, (0.1, 0.3))):
        _, picture, _ = draw(Told(torch.as_tensor(CANON) * scale + torch.tensor(shift)))
        rows, columns = (picture > 0.5).nonzero(as_tuple=True)
        middle = (torch.stack([columns, rows]).float().mean(1) + 0.5) / 64
        wanted = torch.tensor([(left + right) / 2, (top + bottom) / 2]) * scale + torch.tensor(shift)
        assert (middle - wanted).abs().max() < 0.02
        assert abs((columns.max() - columns.min() + 1) / 64 - (right - left) * scale) < 0.05


def test_each_landmark_has_its_own_bell():
    _, _, bells = draw(Told(CANON))
    for bell, point in zip(bells, torch.as_tensor(CANON), strict=True):
        row, column = divmod(int(bell.argmax()), 16)
        assert (torch.tensor([column, row]) - (point * 16).floor()).abs().max() <= 1


def test_where_nothing_moves_only_the_landmarks_are_drawn():
    _, picture, _ = draw(Told(CANON, mouth=0.0))
    assert picture.abs().max() == 0


def test_the_reference_s_head_is_moved_to_the_landmarks_and_the_rest_stays():
    codec, own = make_codec(CODEC), torch.as_tensor(CANON) * 0.5 + 0.1
    pictures = torch.full((2, 3, 64, 64), -0.5)
    column, row = (own[2] * 64).long().tolist()
    pictures[:, :, row - 2 : row + 2, column - 2 : column + 2] = 1.0
    reference = codec.encode(pictures)[:, None]
    goals = torch.stack([own, own + 0.25]).expand(2, 2, 5, 2)
    still, moved = codec.decode(placed(codec, reference, own.expand(2, 5, 2), goals)[0]).mean(1)
    assert (still - pictures[0, 0]).abs().mean() < 0.02
    found = divmod(int(moved.argmax()), 64)
    assert max(abs(found[0] - (row + 16)), abs(found[1] - (column + 16))) <= 2
    assert (moved[:8] + 0.5).abs().max() < 0.05


def test_a_moved_head_is_as_sharp_as_it_was_and_nothing_is_seen_twice():
    """A bar on the face, moved by half a latent pixel: one bar, in the new place, as high."""
    codec = make_codec(dataclasses.replace(CODEC, channels=24))
    own = torch.as_tensor(CANON) * 0.5 + 0.25
    pictures = torch.full((1, 3, 64, 64), -0.5)
    pictures[..., 30:34] = 0.5
    reference = codec.encode(pictures)[:, None]
    shift = torch.tensor([6 / 64, 0.0])
    moved = codec.decode(placed(codec, reference, own[None], (own + shift)[None, None])[:, 0]).mean(1)[0]
    row = moved[int(own[2, 1] * 64)]
    bright = (row > 0.0).nonzero().flatten()
    assert bright.min() >= 35 and bright.max() <= 40 and len(bright) <= 5, row
    assert row.max() > 0.35


def test_eyes_and_mouth_are_repainted_and_the_rest_of_the_picture_is_not():
    points = torch.as_tensor(CANON) * 0.5 + 0.2
    places = repainted(points.expand(1, 2, 5, 2), 64)
    assert places.shape == (1, 2, 1, 64, 64)
    at = (points * 64).long()
    for column, row in (at[0], at[1], at[3:].float().mean(0).long()):
        assert places[0, 0, 0, row, column] > 0.9
    assert places[..., :6].max() < 0.02 and places[..., -6:].max() < 0.02 and places[..., :4, :].max() < 0.02


def test_a_blurred_edge_is_no_way_out_of_not_knowing_where_it_is():
    """An edge in one of three places: the middle one costs less than the mean of all three, unlike by squares."""
    codec = make_codec(dataclasses.replace(CODEC, channels=24))
    edges = torch.full((3, 3, 64, 64), -0.5)
    for i, column in enumerate((30, 32, 34)):
        edges[i, ..., column:] = 0.5
    true = codec.encode(edges)
    sharp, soft = true[1:2].expand_as(true), true.mean(0, keepdim=True).expand_as(true)
    cost = [float(picture_error(codec, guess, true).mean()) for guess in (sharp, soft)]
    squares = [float((codec.decode(guess) - edges).square().mean()) for guess in (sharp, soft)]
    assert cost[0] < cost[1] and squares[0] > squares[1]
    assert float(picture_error(codec, true, true).max()) == 0


def test_errors_count_at_the_mouth_and_only_where_the_gate_is_open():
    head = torch.zeros(2, 3, 13)
    head[..., 6], head[..., 8] = -0.1, 0.1  # corners at half height
    gate = torch.zeros(2, 3, 1, 8, 8)
    gate[:, :, :, 2:6] = 1.0
    places = counted(head, 64, 10.0, gate)
    assert places.shape == (2, 3, 1, 64, 64) and torch.allclose(places.mean((1, 2, 3, 4)), torch.ones(2), atol=1e-4)
    assert places[..., :8, :].max() == 0 and places[..., 32, 32].min() > 5 * places[..., 32, 2].max()
    assert torch.allclose(counted(head, 8, 0.0, None), torch.ones(2, 3, 1, 8, 8))


def test_places_are_as_exact_under_autocast_as_without():
    """bfloat16 rounds a landmark at 0.7 to 1/256 of the picture, and the middles of pixels beyond the 128th."""
    motion = Motion(CONFIG).eval()
    torch.nn.init.normal_(next(p for n, p in motion.named_parameters() if n.startswith("head_decoder")), std=0.3)
    codec, tokens = make_codec(CODEC), torch.randn(1, 2, CONFIG.tokens, CONFIG.token_width)
    own, reference = torch.rand(1, 5, 2), torch.randn(1, 1, 16, 16, 16)
    found = []
    for on in (False, True):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            given = tokens.bfloat16().float() if not on else tokens.bfloat16()
            points = landmarks_of(motion, given)
            found.append((points, sketch(motion, CODEC, given), placed(codec, reference, own, points)))
    for exact, cast in zip(*found, strict=True):
        assert cast.dtype == torch.float32 and torch.allclose(exact, cast, atol=1e-5)


def test_the_aligned_landmarks_are_copied_to_a_device_once():
    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            made = operation(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and any(
                isinstance(one, torch.Tensor) and one.device != made.device for one in args
            ):
                copied.append(operation)
            return made

    recipe, copied = nano(), []
    motion, shape = Motion(recipe.motion).to("meta"), (1, 2, recipe.motion.tokens, recipe.motion.token_width)
    tokens = torch.zeros(shape, device="meta")
    sketch(motion, recipe.codec, tokens)
    with Copies():
        sketch(motion, recipe.codec, tokens)
    assert not copied
