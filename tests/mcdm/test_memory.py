"""Equations 4 and 5, and the three attentions."""

import pytest
import torch

from mcdm import memory
from mcdm.memory import MemoryAttention, attend, ema_scan, favor_attention, linear_attention, orthogonal_features


def naive_scan(features, decay, carry=None):
    memory, out = carry, []
    for frame in features.unbind(1):
        memory = frame if memory is None else decay * memory + (1 - decay) * frame
        out.append(memory)
    return torch.stack(out, 1)


@pytest.mark.parametrize("decay", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("carried", [False, True])
def test_the_scan_is_the_recursion_of_equations_4_and_5(decay, carried):
    features = torch.randn(2, 6, 5, 3)
    carry = torch.randn(2, 5, 3) if carried else None
    assert torch.allclose(ema_scan(features, decay, carry), naive_scan(features, decay, carry), atol=1e-5)


def test_a_clip_split_in_two_with_the_memory_carried_is_the_whole_clip():
    features = torch.randn(2, 8, 5, 3)
    first = ema_scan(features[:, :3], 0.5)
    second = ema_scan(features[:, 3:], 0.5, first[:, -1])
    assert torch.allclose(torch.cat([first, second], 1), ema_scan(features, 0.5), atol=1e-6)


def memory_attention(mode="exact", features=64, **options):
    given = {"decay": 0.1, "zero_init": False, "use": True, **options}
    return MemoryAttention(16, 2, 4, mode=mode, features=features, **given)


def test_the_present_half_alone_equals_dense_attention_over_both_halves_cut():
    layer = memory_attention()
    archived, present = torch.randn(2, 4, 3, 16), torch.randn(2, 4, 3, 16)
    got, carry = layer(archived, present, None)
    both = torch.cat([ema_scan(archived, 0.1), present], 1)
    x = layer.norm(both).transpose(1, 2).flatten(0, 1) + layer.positions
    q, k, v = (part(x).view(6, 8, 2, 8).transpose(1, 2) for part in (layer.to_q, layer.to_k, layer.to_v))
    dense = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
    full = layer.to_out(dense.transpose(1, 2).flatten(2)).view(2, 3, 8, 16).transpose(1, 2)
    assert torch.allclose(got, full[:, 4:], atol=1e-5)
    assert torch.equal(carry, ema_scan(archived, 0.1)[:, -1])


def test_without_memory_the_archived_features_do_not_matter():
    layer, present = memory_attention(use=False), torch.randn(1, 4, 3, 16)
    one, _ = layer(torch.randn(1, 4, 3, 16), present, None)
    other, _ = layer(torch.randn(1, 4, 3, 16), present, None)
    assert torch.equal(one, other)


def test_favor_comes_nearer_to_softmax_with_more_features():
    torch.manual_seed(0)
    q, k, v = (torch.randn(4, 2, 32, 16) * 0.5 for _ in range(3))
    exact = attend(q, k, v, "exact")
    errors = []
    for count in (16, 256, 4096):
        tries = [favor_attention(q, k, v, orthogonal_features(16, count, seed)) for seed in range(4)]
        errors.append(sum(float((one - exact).square().mean()) for one in tries))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_random_features_are_orthogonal_and_the_same_everywhere():
    one = orthogonal_features(8, 8)
    gram = one @ one.T
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-4)
    assert torch.equal(one, orthogonal_features(8, 8))
    assert "projection" in memory_attention().state_dict()


def test_linear_attention_is_its_definition():
    q, k, v = (torch.randn(1, 1, 5, 4) for _ in range(3))
    rows = torch.stack([sum(k.softmax(-2)[0, 0, j, :, None] * v[0, 0, j][None] for j in range(5))])[0]
    assert torch.allclose(linear_attention(q, k, v)[0, 0], q.softmax(-1)[0, 0] @ rows, atol=1e-6)


def test_favor_without_features_is_refused():
    q = torch.randn(1, 1, 2, 4)
    with pytest.raises(ValueError, match="random features"):
        attend(q, q, q, "favor")


def test_rows_beyond_what_a_kernel_takes_at_once_are_answered_in_pieces(monkeypatch):
    q, k, v = (torch.randn(11, 2, length, 8) for length in (3, 5, 5))
    whole = attend(q, k, v, "exact")
    seen = []
    fused = memory.F.scaled_dot_product_attention
    monkeypatch.setattr(memory, "_GRID_ROWS", 4)
    monkeypatch.setattr(
        memory.F, "scaled_dot_product_attention", lambda *given: seen.append(len(given[0])) or fused(*given)
    )
    assert torch.allclose(attend(q, k, v, "exact"), whole, atol=1e-6) and seen == [4, 4, 3]
