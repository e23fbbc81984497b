"""Reach into a model: heads, MLPs, what they write and what reads it. The only file here that knows families.

Attributions need gradients and edges need what each head alone reads, so this room uses bare PyTorch hooks
and not `helpers.trace`; they are all in this file, and all come off again when a block ends.

A head's value is the input of the attention's output projection, split into heads (``BTHC``: batch, position,
head, width of a head). With grouped-query attention several query heads share a key and a value head; the
split is by query heads, so it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from helpers.models import FAMILIES, LanguageModel

__all__ = ["Tape", "Wires", "Wiring"]

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Wiring:
    """Say how a family calls the parts of a layer that this room needs.

    Parameters
    ----------
    out : str
        The attention's output projection.
    norms : tuple of str
        What normalises the input of the attention, and that of the MLP.
    posts : tuple of str
        What normalises their outputs before they are added to the residual stream, where a family does that.
    act, down : str
        The MLP's activation function and its last projection.
    """

    out: str = "o_proj"
    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    posts: tuple[str, ...] = ()
    act: str = "act_fn"
    down: str = "down_proj"


WIRING = {
    "gpt2": Wiring("c_proj", ("ln_1", "ln_2"), (), "act", "c_proj"),
    "llama": Wiring(),
    "qwen2": Wiring(),
    "gemma2": Wiring(
        norms=("input_layernorm", "pre_feedforward_layernorm"),
        posts=("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
}


@dataclass(frozen=True)
class Wires:
    """Find the parts of a model.

    Parameters
    ----------
    lm : LanguageModel
        The model.

    Examples
    --------
    >>> from helpers.circuits.wires import Wires
    >>> from helpers.models import random_model
    >>> wires = Wires(random_model(n_layers=2, d_model=16))
    >>> wires.n_heads, wires.n_groups, wires.width
    (4, 4, 4)

    Taught in: toxic-finetuning
    """

    lm: LanguageModel

    @property
    def wiring(self) -> Wiring:
        """The family's names."""
        return WIRING[self.lm.family]

    @property
    def layers(self) -> list[Any]:
        """The decoder layers."""
        return list(attrgetter(FAMILIES[self.lm.family].layers)(self.lm.model))

    @property
    def n_heads(self) -> int:
        """Query heads in a layer."""
        return int(self.lm.model.config.num_attention_heads)

    @property
    def n_groups(self) -> int:
        """Key and value heads in a layer."""
        return int(getattr(self.lm.model.config, "num_key_value_heads", None) or self.n_heads)

    @property
    def width(self) -> int:
        """Width of one head."""
        return int(_weight(self.out(0)).shape[1]) // self.n_heads

    def attn(self, layer: int) -> Any:
        """Return a layer's attention."""
        return getattr(self.layers[layer], FAMILIES[self.lm.family].attn)

    def mlp(self, layer: int) -> Any:
        """Return a layer's MLP."""
        return getattr(self.layers[layer], FAMILIES[self.lm.family].mlp)

    def out(self, layer: int) -> Any:
        """Return the output projection of a layer's attention."""
        return getattr(self.attn(layer), self.wiring.out)

    def norm(self, layer: int, half: int) -> Any:
        """Return what normalises the input of the attention (0) or the MLP (1)."""
        return getattr(self.layers[layer], self.wiring.norms[half])

    def post(self, layer: int, half: int) -> Any | None:
        """Return what normalises the output of the attention (0) or the MLP (1), where a family does."""
        return getattr(self.layers[layer], self.wiring.posts[half]) if self.wiring.posts else None

    @property
    def final_norm(self) -> Any:
        """What normalises the residual stream after the last layer."""
        base = self.lm.model.base_model
        return base.ln_f if self.lm.family == "gpt2" else base.norm

    @property
    def all_norms(self) -> list[Any]:
        """Every normalisation of the model."""
        inside = [self.norm(layer, half) for layer in range(self.lm.n_layers) for half in (0, 1)]
        after = [self.post(layer, half) for layer in range(self.lm.n_layers) for half in (0, 1)]
        return [*inside, *(norm for norm in after if norm is not None), self.final_norm]

    def head_weights(self, layer: int) -> Float[Tensor, "head width d_model"]:
        """Return what each head's value is multiplied with before it is added to the stream."""
        return _weight(self.out(layer)).T.reshape(self.n_heads, self.width, -1)

    def input_weights(self, layer: int) -> Float[Tensor, "input width d_model"]:
        """Return the weights of a layer's queries, then keys, then values, one matrix a head."""
        attn = self.attn(layer)
        if self.lm.family == "gpt2":
            return _weight(attn.c_attn).reshape(3 * self.n_heads, self.width, -1)
        parts = (attn.q_proj, attn.k_proj, attn.v_proj)
        return torch.cat([_weight(part) for part in parts]).reshape(-1, self.width, self.lm.d_model)

    def qkv(self, layer: int) -> list[Any]:
        """Return the modules whose outputs, side by side, are queries, keys and values."""
        attn = self.attn(layer)
        return [attn.c_attn] if self.lm.family == "gpt2" else [attn.q_proj, attn.k_proj, attn.v_proj]

    def split(self, flat: Tensor) -> Tensor:
        """Split the last dimension into heads."""
        return flat.unflatten(-1, (-1, self.width))

    def head_writes(self, layer: int, flat: Tensor) -> Float[Tensor, "batch position head d_model"]:
        """Return what each head adds to the residual stream.

        Where a family normalises the attention's output (gemma2), each head gets its share of that: the
        heads' writes sum to the attention's, apart from the bias of the output projection (gpt2).
        """
        alone = torch.einsum("bthc,hcd->bthd", self.split(flat), self.head_weights(layer))
        post = self.post(layer, 0)
        if post is None:
            return alone
        scale = torch.rsqrt(alone.sum(2).pow(2).mean(-1, keepdim=True) + post.eps) * (1 + post.weight)
        return alone * scale[:, :, None]

    def mlp_write(self, layer: int, out: Tensor) -> Float[Tensor, "batch position d_model"]:
        """Return what an MLP adds to the residual stream."""
        post = self.post(layer, 1)
        return out if post is None else post(out)


def _weight(linear: Any) -> Tensor:
    """Return a projection's weights with outputs in rows; gpt2 stores them the other way round."""
    weight: Tensor = linear.weight
    return weight if isinstance(linear, nn.Linear) else weight.T


@dataclass
class Tape:
    """What a forward pass left behind, one tensor a layer, each as the model itself goes on with it.

    Attributes
    ----------
    heads : list of Float[Tensor, "batch position heads*width"]
        The heads' values, side by side.
    mlps : list of Float[Tensor, "batch position d_model"]
        The MLPs' outputs.
    resid, middle : list of Float[Tensor, "batch position d_model"]
        The residual stream before each layer (and last, after all of them), and before each MLP.
    normed : list of Float[Tensor, "batch position d_model"]
        What each MLP is given: the normalised stream.
    qkv : list of lists
        Queries, keys and values as each layer's projections give them.
    """

    heads: list[Tensor] = field(default_factory=list)
    mlps: list[Tensor] = field(default_factory=list)
    resid: list[Tensor] = field(default_factory=list)
    middle: list[Tensor] = field(default_factory=list)
    normed: list[Tensor] = field(default_factory=list)
    qkv: list[list[Tensor]] = field(default_factory=list)


@contextmanager
def recording(lm: LanguageModel) -> Iterator[Tape]:
    """Record every forward pass in the block; with gradients, where they are on."""
    wires, tape = Wires(lm), Tape()
    with ExitStack() as stack:

        def before(module: Any, note: Callable[[Tensor], None]) -> None:
            def hook(module: Any, args: Any, kwargs: Any) -> None:
                note(args[0] if args else kwargs["hidden_states"])

            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

        def after(module: Any, note: Callable[[Tensor], None]) -> None:
            stack.callback(module.register_forward_hook(lambda module, args, out: note(out)).remove)

        for layer in range(lm.n_layers):
            before(wires.layers[layer], tape.resid.append)
            before(wires.out(layer), tape.heads.append)
            before(wires.norm(layer, 1), tape.middle.append)
            before(wires.mlp(layer), tape.normed.append)
            after(wires.mlp(layer), tape.mlps.append)
            before(wires.qkv(layer)[0], lambda _: tape.qkv.append([]))
            for module in wires.qkv(layer):
                after(module, lambda out: tape.qkv[-1].append(out))
        before(wires.final_norm, tape.resid.append)
        yield tape


@contextmanager
def patching(
    lm: LanguageModel,
    *,
    heads: Mapping[int, Change] | None = None,
    mlps: Mapping[int, Change] | None = None,
    qkv: Mapping[int, Change] | None = None,
) -> Iterator[None]:
    """Change the heads' values, the MLPs' outputs or queries, keys and values of some layers in the block."""
    wires = Wires(lm)
    with ExitStack() as stack:
        for layer, change in (heads or {}).items():

            def enter(module: Any, args: Any, change: Change = change) -> Any:
                return (change(wires.split(args[0])).flatten(-2), *args[1:])

            stack.callback(wires.out(layer).register_forward_pre_hook(enter).remove)
        for layer, change in (mlps or {}).items():

            def leave(module: Any, args: Any, out: Tensor, change: Change = change) -> Tensor:
                return change(out)

            stack.callback(wires.mlp(layer).register_forward_hook(leave).remove)
        for layer, change in (qkv or {}).items():
            _change_qkv(wires, layer, change, stack)
        yield


def _change_qkv(wires: Wires, layer: int, change: Change, stack: ExitStack) -> None:
    """Change queries, keys and values, laid side by side: as many as there are heads of each kind."""
    heads, groups = wires.n_heads, wires.n_groups
    modules = wires.qkv(layer)
    ends = [heads, heads + groups, heads + 2 * groups]
    starts = [(0, ends[-1])] if len(modules) == 1 else list(zip([0, *ends[:-1]], ends, strict=True))
    for module, (first, last) in zip(modules, starts, strict=True):

        def leave(module: Any, args: Any, out: Tensor, part: slice = slice(first, last)) -> Tensor:
            split = wires.split(out)
            whole = split.new_zeros(*split.shape[:-2], heads + 2 * groups, wires.width)
            whole[..., part, :] = split
            return change(whole)[..., part, :].flatten(-2)

        stack.callback(module.register_forward_hook(leave).remove)


@contextmanager
def starting_at(
    lm: LanguageModel, layer: int, resid_BTD: Float[Tensor, "batch position d_model"]
) -> Iterator[None]:
    """Skip the layers before one, and give that one the residual stream of an earlier pass."""
    skipped = Wires(lm).layers[:layer]
    try:
        for module in skipped:
            module.forward = lambda hidden_states, *_, **__: hidden_states
        if skipped:
            skipped[-1].forward = lambda *_, **__: resid_BTD
        yield
    finally:
        for module in skipped:
            del module.forward


@contextmanager
def fed(lm: LanguageModel, inputs: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Give every layer an input of its own, whatever the one before it made; collect what it makes of it."""
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for layer, x_BTD in zip(Wires(lm).layers, inputs, strict=False):

            def enter(module: Any, args: Any, kwargs: Any, x_BTD: Tensor = x_BTD) -> Any:
                rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
                return (x_BTD, *args[1:]), rest

            stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(lambda module, args, out: seen.append(out)).remove)
        yield seen


@contextmanager
def linearised(lm: LanguageModel) -> Iterator[None]:
    """Change gradients, not values: the rules of RelP (2508.21258).

    A normalisation passes gradients as if its scale were a constant; an activation function as if it were
    multiplication with a constant; and of the product of gate and value each side gets half.
    """
    wires = Wires(lm)
    changed: list[Any] = []
    with ExitStack() as stack:
        for norm in wires.all_norms:
            norm.forward = lambda x, norm=norm: frozen_norm(norm, x)
            changed.append(norm)
        for layer in range(lm.n_layers):
            act = getattr(wires.mlp(layer), wires.wiring.act)
            act.forward = lambda x, forward=act.forward: _ratio_rule(forward, x)
            changed.append(act)
            if lm.family != "gpt2":
                down = getattr(wires.mlp(layer), wires.wiring.down)
                stack.callback(down.register_forward_pre_hook(_half_rule).remove)
        try:
            yield
        finally:
            for module in changed:
                del module.forward


def frozen_norm(norm: Any, x: Tensor) -> Tensor:
    """Normalise; gradients see the scale as a constant."""
    centred = x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    scale = torch.rsqrt(centred.detach().pow(2).mean(-1, keepdim=True) + eps)
    weight = norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight
    shifted = getattr(norm, "bias", None)
    return centred * scale * weight + (0 if shifted is None else shifted)


def _ratio_rule(forward: Change, x: Tensor) -> Tensor:
    """Compute f(x) as x times a constant f(x) / x."""
    with torch.no_grad():
        value = forward(x)
        ratio = torch.where(x.abs() > 1e-6, value / x, 0.5)
    return x * ratio + (value - x.detach() * ratio)


def _half_rule(module: Any, args: Any) -> Any:
    """Send half of the gradient to each factor of a product."""
    half = args[0] / 2
    return (half + half.detach(),)


def end_logits(
    lm: LanguageModel,
    tokens_BT: Int[Tensor, "batch position"],
    ends_B: Int[Tensor, "batch"],
    *,
    answers_A: Int[Tensor, "answer"] | None = None,
    embeds_BTD: Float[Tensor, "batch position d_model"] | None = None,
) -> Float[Tensor, "batch answer"]:
    """Run the model; return the logits of some tokens after each prompt's last one."""
    inputs = {"input_ids": tokens_BT.to(lm.device)} if embeds_BTD is None else {"inputs_embeds": embeds_BTD}
    hidden_BTD = lm.model.base_model(**inputs, use_cache=False).last_hidden_state
    rows = torch.arange(len(hidden_BTD), device=lm.device)
    hidden_BD = hidden_BTD[rows, ends_B.to(lm.device)]
    head = lm.model.get_output_embeddings()
    weight_AD = head.weight if answers_A is None else head.weight[answers_A.to(lm.device)]
    logits_BA = hidden_BD @ weight_AD.T
    cap = getattr(lm.model.config, "final_logit_softcapping", None)
    return logits_BA if cap is None else torch.tanh(logits_BA / cap) * cap


@contextmanager
def eager(lm: LanguageModel) -> Iterator[list[Tensor]]:
    """Let attention compute its patterns in full, and record them: one (batch, head, query, key) a layer."""
    before = lm.model.config._attn_implementation
    seen: list[Tensor] = []
    handles = [
        Wires(lm).attn(layer).register_forward_hook(lambda module, args, out: seen.append(out[1]))
        for layer in range(lm.n_layers)
    ]
    lm.model.set_attn_implementation("eager")
    try:
        yield seen
    finally:
        lm.model.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
