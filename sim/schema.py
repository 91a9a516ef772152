"""Rows of the catalogue, before any arithmetic. Units stand in the field names; a field without a value is absent."""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

Confidence = Literal["measured", "fitted", "vendor", "published", "derived", "disputed", "guessed"]
Status = Literal["exists", "guide"]


class Row(BaseModel):
    """A frozen record that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Indexer(Row):
    """Lightning indexer of sparse attention (DeepSeek V3.2, arXiv:2512.02556): scores all entries, keeps top-k."""

    n_heads: PositiveInt
    head_dim: PositiveInt
    topk: PositiveInt
    shared: bool = False


class GqaAttention(Row):
    """Multi-head, grouped-query or multi-query attention, optionally within a window or a chunk."""

    type: Literal["gqa"]
    n_heads: PositiveInt
    n_kv_heads: PositiveInt
    head_dim: PositiveInt
    window: PositiveInt | None = None
    chunked: bool = False
    qk_norm: Literal["head", "full"] | None = None
    k_eq_v: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    sinks: bool = False
    output_gate: bool = False
    kv_from_other_layer: bool = False
    extra_params: NonNegativeInt = 0


class MlaAttention(Row):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434 section 2.1), with or without an indexer."""

    type: Literal["mla"]
    n_heads: PositiveInt
    q_lora_rank: PositiveInt | None = None
    kv_lora_rank: PositiveInt
    qk_nope_head_dim: PositiveInt
    qk_rope_head_dim: NonNegativeInt
    v_head_dim: PositiveInt
    indexer: Indexer | None = None
    output_gate: bool = False
    extra_params: NonNegativeInt = 0


class GdnAttention(Row):
    """Gated DeltaNet or Kimi Delta Attention: a constant matrix state per value head, and a short convolution."""

    type: Literal["gdn"]
    n_key_heads: PositiveInt
    n_value_heads: PositiveInt
    key_head_dim: PositiveInt
    value_head_dim: PositiveInt
    conv_kernel: PositiveInt
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    extra_params: NonNegativeInt = 0


class Mamba2Attention(Row):
    """Mamba-2 mixer (arXiv:2405.21060): a constant state per head, and a short convolution."""

    type: Literal["mamba2"]
    n_heads: PositiveInt
    head_dim: PositiveInt
    n_groups: PositiveInt
    state_size: PositiveInt
    conv_kernel: PositiveInt
    conv_bias: bool = False
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    extra_params: NonNegativeInt = 0


class CompressedAttention(Row):
    """DeepSeek V4: shared-KV attention over a window, and over entries of `compress_ratio` tokens (0: window only)."""

    type: Literal["v4"]
    n_heads: PositiveInt
    n_kv_heads: Literal[1] = 1
    head_dim: PositiveInt
    qk_rope_head_dim: PositiveInt
    q_lora_rank: PositiveInt
    o_groups: PositiveInt
    o_lora_rank: PositiveInt
    window: PositiveInt
    compress_ratio: NonNegativeInt
    indexer: Indexer | None = None
    extra_params: NonNegativeInt = 0


class NoMixer(Row):
    """A layer, or half of one, without attention or without a feed-forward block."""

    type: Literal["none"]


class GluFfn(Row):
    """Dense feed-forward block: gate, up and down projections (`gated = false`: up and down)."""

    type: Literal["glu"]
    intermediate_size: PositiveInt
    gated: bool = True


class MoeFfn(Row):
    """Mixture of experts: routed experts, an always-on shared expert, a parallel dense block."""

    type: Literal["moe"]
    n_experts: PositiveInt
    n_experts_per_token: PositiveInt
    moe_intermediate_size: PositiveInt
    shared_expert_intermediate_size: NonNegativeInt = 0
    shared_expert_gate: bool = False
    parallel_dense_intermediate_size: NonNegativeInt = 0
    latent_size: PositiveInt | None = None
    gated: bool = True
    router_bias: bool = False
    expert_bias: bool = False
    extra_params: NonNegativeInt = 0


AnyMixer = Union[GqaAttention, MlaAttention, GdnAttention, Mamba2Attention, CompressedAttention, NoMixer]
Attention = Annotated[AnyMixer, Field(discriminator="type")]
Ffn = Annotated[Union[GluFfn, MoeFfn, NoMixer], Field(discriminator="type")]


class LayerRun(Row):
    """`count` layers of the model that pair one attention kind with one feed-forward kind."""

    attention: str
    ffn: str
    count: PositiveInt


class NativeFormat(Row):
    """Weight format the publisher ships, by role, as formats.toml ids; attention as `other`, head as `embeddings`."""

    routed_experts: str
    other: str
    embeddings: str
    attention: str | None = None
    head: str | None = None


class ModelRow(Row):
    """An open-weights model: its architecture, as counted, and what its publisher says of it."""

    id: str
    name: str
    hf_id: str | None = None
    aliases: tuple[str, ...] = ()
    status: Status = "exists"
    nearest: str | None = None
    hidden_size: PositiveInt
    vocab_size: PositiveInt
    tie_word_embeddings: bool
    norms_per_layer: NonNegativeInt
    max_context_tokens: PositiveInt
    attention: dict[str, Attention]
    ffn: dict[str, Ffn]
    layers: tuple[LayerRun, ...]
    extra_params: int = 0
    lookup_only_params: NonNegativeInt = 0
    vision_params: NonNegativeInt = 0
    audio_params: NonNegativeInt = 0
    n_mtp_layers: NonNegativeInt = 0
    current: bool = False
    native_format: NativeFormat
    published_total_params: PositiveInt | None = None
    published_active_params: PositiveInt | None = None
    sources: tuple[str, ...]
    confidence: Confidence
    note: str = ""


class Link(Row):
    """A link between devices, one direction per device. `p2p = false`: through host memory; `bus`: shared, as PCIe."""

    type: str
    gb_per_s: PositiveFloat
    latency_us: PositiveFloat
    domain_devices: PositiveInt
    p2p: bool = True
    bus: bool = False
    mesh_links: PositiveInt | None = None
    allreduce_busbw_gb_per_s: PositiveFloat | None = None


class DeviceRow(Row):
    """A GPU, an accelerator or a unified-memory machine, as its data sheet describes it: peaks, never efficiencies."""

    id: str
    name: str
    aliases: tuple[str, ...] = ()
    vendor: Literal["NVIDIA", "AMD", "Apple", "Google"]
    kind: Literal["discrete", "unified"]
    family: str
    arch: str
    status: Status = "exists"
    nearest: str | None = None
    memory_gb: PositiveFloat
    memory_bytes: PositiveInt
    memory_options_gb: tuple[PositiveInt, ...] = ()
    default_usable_frac: Annotated[float, Field(gt=0, le=1)] = 1.0
    usable_frac_by_memory_gb: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    bandwidth_gb_per_s: PositiveFloat
    peak_tflops: dict[Literal["fp32", "fp16", "fp8", "int8", "fp4"], PositiveFloat]
    link: Link
    scale_out_gb_per_s: PositiveFloat | None = None
    scale_out_latency_us: PositiveFloat | None = None
    pcie_gb_per_s: PositiveFloat | None = None
    host: str | None = None
    tdp_w: PositiveFloat
    idle_w: NonNegativeFloat
    host_power_w: NonNegativeFloat = 0.0
    price_usd: PositiveFloat | None = None
    price_date: str | None = None
    price_usd_by_memory_gb: dict[str, PositiveFloat] = {}
    launch_date: str | None = None
    sources: dict[str, str]
    confidence: dict[str, Confidence]
    note: str = ""


class SystemRow(Row):
    """Several devices sold or wired as one: their count, nodes, link and wall power."""

    id: str
    name: str
    aliases: tuple[str, ...] = ()
    status: Status = "exists"
    nearest: str | None = None
    device: str
    n_devices: PositiveInt
    nodes: PositiveInt = 1
    link: Link
    scale_out_gb_per_s: PositiveFloat | None = None
    scale_out_latency_us: PositiveFloat | None = None
    max_power_w: PositiveFloat | None = None
    price_usd: PositiveFloat | None = None
    sources: dict[str, str]
    confidence: dict[str, Confidence]
    note: str = ""


class HostRow(Row):
    """Host memory that can hold offloaded weights, and the processor that then reads them."""

    id: str
    name: str
    memory_gb: PositiveFloat
    bandwidth_gb_per_s: PositiveFloat
    peak_tflops: PositiveFloat
    source: str
    confidence: Confidence


class PriceRow(Row):
    """What renting one device for an hour cost, on demand, at one provider on one day."""

    device: str
    provider: str
    usd_per_hour: PositiveFloat
    date: str
    source: str


class FormatRow(Row):
    """A weight format: bits per weight (scales included), what multiplies, and the formats of head and embeddings."""

    id: str
    name: str
    aliases: tuple[str, ...] = ()
    bits_per_weight: PositiveFloat
    head: str | None = None
    embedding: str | None = None
    non_expert: str | None = None
    kernel: Literal["bf16", "fp8", "int8", "fp4", "int4", "gguf_k", "gguf_iq", "mlx"]
    compute: tuple[Literal["fp16", "fp8", "int8", "fp4"], ...]
    quality_rank: int
    tensor_only: bool = False
    source: str
    confidence: Confidence
    note: str = ""
