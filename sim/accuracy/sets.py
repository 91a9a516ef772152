"""The public sets of measurements that the accuracy document is made from, for those who have never seen them."""

from __future__ import annotations

# File -> what it holds, and where it is from.
SETS = {
    "silicon.csv.gz": (
        "closed-loop serving runs on H100, H200, B200, B300 and GB200 by vLLM, SGLang and TensorRT-LLM, of Llama, "
        "Qwen3, gpt-oss, DeepSeek, Kimi and GLM models: a run a row, with its TPOT and its TTFT. All requests are "
        "offered at once and a fixed number runs, so TTFT holds the opening burst and the queue. From the "
        "end-to-end sample that NVIDIA's aiconfigurator is checked with (github.com/ai-dynamo/aiconfigurator); "
        "duplicates and runs with speculative decoding are removed, labels of parallelism corrected."
    ),
    "serving.csv.gz": (
        "serving figures of other origins, mostly on data-center GPUs: one a row, be it a TPOT, a TTFT, tokens/s "
        "or the time of a step. About half are SemiAnalysis's InferenceMAX results of gpt-oss-120b and "
        "DeepSeek-R1; the rest is more of aiconfigurator (disaggregated runs, logs of single steps), NVIDIA's "
        "performance tables of TensorRT-LLM and NIM, SGLang's cookbook, vLLM's recipes, LMDeploy's benchmark and "
        "smaller tables. What a server was started with is seldom stated."
    ),
    "local.csv.gz": (
        "one user or few on consumer GPUs, Apple Silicon and single cards: a prefill or a decode a row, seldom a "
        "whole request. From public collections of llama-bench and MLX runs "
        "(XiongjieDai/GPU-Benchmarks-on-LLM-Inference, guruswami-ai/mlx-benchmarks, defai-digital/ax-engine, "
        "llama.cpp's own tables, geerlingguy/ai-benchmarks, hiesch.eu/bench) and projects' own tables (Qwen, "
        "mlx-lm, AutoAWQ, ExLlamaV2 and others)."
    ),
}
