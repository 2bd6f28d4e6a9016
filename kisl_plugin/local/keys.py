"""Which keys of a GPT-NeoX YAML the embedded engine honours, needs at one value, or passes over.

Defaults are GPT-NeoX's own (megatron/neox_arguments at ea7aefd8): a key that is left out
means there what it means here.
"""

from typing import Any

NEEDED = ("num_layers", "hidden_size", "num_attention_heads", "seq_length", "max_position_embeddings", "optimizer",
          "train_iters", "data_path", "vocab_file")  # fmt: skip

# Honoured, with GPT-NeoX's defaults and the types that are taken.
HONOURED: dict[str, tuple[Any, tuple[type, ...]]] = {
    "num_layers": (None, (int,)),
    "hidden_size": (None, (int,)),
    "intermediate_size": (None, (int,)),
    "mlp_multiple_of": (1, (int,)),
    "num_attention_heads": (None, (int,)),
    "num_kv_heads": (None, (int,)),
    "seq_length": (None, (int,)),
    "max_position_embeddings": (None, (int,)),
    "rms_norm_epsilon": (1e-8, (float,)),
    "rotary_emb_base": (10_000, (int,)),
    "no_weight_tying": (False, (bool,)),
    "make_vocab_size_divisible_by": (128, (int,)),
    "model_parallel_size": (1, (int,)),
    "init_method": ("normal", (str,)),
    "output_layer_init_method": ("scaled_normal", (str,)),
    "init_method_std": (0.02, (float,)),
    "precision": (None, (str,)),
    "bf16": (None, (dict,)),
    "optimizer": (None, (dict,)),
    "lr_decay_style": ("linear", (str,)),
    "lr_decay_iters": (None, (int,)),
    "lr_decay_fraction": (None, (float,)),
    "min_lr": (0.0, (float,)),
    "warmup": (0.01, (float,)),
    "weight_decay": (0.1, (float,)),
    "gradient_clipping": (1.0, (float,)),
    "train_iters": (None, (int,)),
    "train_batch_size": (None, (int,)),
    "train_micro_batch_size_per_gpu": (None, (int,)),
    "gradient_accumulation_steps": (1, (int,)),
    "seed": (1234, (int,)),
    "data_path": (None, (str,)),
    "split": ("969, 30, 1", (str,)),
    "vocab_file": (None, (str,)),
    "save": (None, (str,)),
    "load": (None, (str,)),
    "finetune": (False, (bool,)),
    "checkpoint_factor": (None, (int,)),
    "extra_save_iters": (None, (list,)),
    "keep_last_n_checkpoints": (None, (int,)),
    "log_interval": (100, (int,)),
    "eval_interval": (1000, (int,)),
    "eval_iters": (100, (int,)),
    "kisl": (None, (dict,)),
}

# They change the mathematics: GPT-NeoX's default, and the values under which the run is a Llama run of this engine.
FIXED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "norm": ("layernorm", ("rmsnorm",)),
    "pos_emb": ("learned", ("rotary",)),
    "rotary_pct": (1.0, (1, 1.0)),
    "activation": ("gelu", ("swiglu",)),
    "use_bias_in_attn_linear": (True, (False,)),
    "use_bias_in_mlp": (True, (False,)),
    "gpt_j_residual": (False, (False,)),
    "gpt_j_tied": (False, (False,)),
    "hidden_dropout": (0.0, (0, 0.0)),
    "attention_dropout": (0.0, (0, 0.0)),
    "use_qk_layernorm": (False, (False,)),
    "apply_query_key_layer_scaling": (False, (False,)),
    "sliding_window_width": (None, (None,)),
    "expansion_factor": (None, (None,)),
    "num_unique_layers": (None, (None,)),
    "soft_prompt_tuning": (None, (None,)),
    "moe_num_experts": (1, (1,)),
    "use_mup": (False, (False,)),
    "eod_mask_loss": (False, (False,)),
    "z_loss": (0.0, (0, 0.0)),
    "tokenizer_type": ("GPT2BPETokenizer", ("HFTokenizer",)),
    "data_impl": ("infer", ("infer", "mmap")),
    "pack_impl": ("packed", ("packed",)),
    "dataset_impl": ("gpt2", ("gpt2",)),
    "train_impl": ("normal", ("normal",)),
    "train_epochs": (None, (None,)),
    "train_data_paths": (None, (None,)),
    "curriculum_learning": (None, (None,)),
    "checkpoint_scale": ("linear", ("linear",)),
    "fp16_lm_cross_entropy": (False, (False,)),
    "use_bnb_optimizer": (False, (False,)),
    "te_columnparallel": (False, (False,)),
    "te_rowparallel": (False, (False,)),
    "te_layernorm_mlp": (False, (False,)),
    "te_mha": (False, (False,)),
}

# They are looked into (local/sections.py).
SECTIONS = ("fp16", "amp", "attention_config", "sparsity_config", "deepspeed_extra_args")

# Keys of deepspeed_extra_args that concern the system.
DEEPSPEED_WITHOUT_EFFECT = frozenset(
    """
    zero_optimization comms_logger steps_per_print wall_clock_breakdown communication_data_type
    activation_checkpointing flops_profiler data_types tensorboard wandb csv_monitor
    """.split()
)

# They concern the system (speed, memory, layout, logging) and not what is computed.
WITHOUT_EFFECT = frozenset(
    """
    pipe_parallel_size sequence_parallel pipe_partition_method world_size zero_optimization zero_stage
    zero_reduce_scatter zero_contiguous_gradients zero_reduce_bucket_size zero_allgather_bucket_size
    scaled_upper_triang_masked_softmax_fusion scaled_masked_softmax_fusion
    bias_gelu_fusion bias_dropout_fusion rope_fusion layernorm_fusion rmsnorm_fusion use_flashattn_swiglu
    fused_kernels_build_path attention_softmax_in_fp32 use_cpu_initialization rotary_save_freqs_buffer
    use_bias_in_norms layernorm_epsilon output_layer_parallelism checkpoint_activations checkpoint_num_layers
    deepspeed_activation_checkpointing contiguous_checkpointing checkpoint_in_cpu synchronize_each_layer
    profile_backward partition_activations activation_checkpointing num_workers distributed_backend local_rank rank
    lazy_mpu_init mmap_warmup use_shared_fs deepspeed deepspeed_mpi deepspeed_slurm
    steps_per_print wall_clock_breakdown dump_state flops_profiler communication_data_type data_types autotuning
    comms_logger tensorboard wandb csv_monitor prescale_gradients gradient_predivide_factor sparse_gradients
    fp32_allreduce hostfile include exclude num_nodes num_gpus master_port master_addr launcher force_multi
    no_ssh_check detect_nvlink_pairs comment account use_wandb wandb_group wandb_run_name wandb_team wandb_project
    wandb_host wandb_init_all_ranks use_comet comet_workspace comet_project comet_experiment_name comet_tags
    comet_others log_dir tensorboard_dir peak_theoretical_tflops log_grad_pct_zeros log_param_norm log_grad_norm
    log_optimizer_states log_gradient_noise_scale memory_profiling memory_profiling_path profile profile_step_start
    profile_step_stop loss_scale loss_scale_window hysteresis min_scale dynamic_loss_scale
    checkpoint_validation_with_forward_pass no_save_optim no_save_rng no_load_rng override_lr_scheduler
    use_checkpoint_lr_scheduler text_gen_type temperature top_p top_k maximum_tokens prompt_end sample_input_file
    sample_output_file num_samples recompute eval_results_prefix eval_tasks char_level_ppl merge_file s3_path
    s3_chunk_size onnx_safe gmlp_attn_dim rpe_num_buckets rpe_max_distance opt_pos_emb_offset scalenorm_epsilon
    """.split()
)

KNOWN = frozenset([*HONOURED, *FIXED, *SECTIONS, *WITHOUT_EFFECT])
