"""What other libraries call our config keys, and what has no counterpart here.

Looked up before spelling: `train.lr` means `optim.lr`, however near `train.remat` is by letters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

_NAMES = {
    "seed": "random_seed rng_seed",
    "method": "algorithm",
    "embed": "embed_dim embedding_dim out_dim output_dim dim proj_dim projection_dim joint_dim",
    "image.tower": "image_tower vision_tower image_encoder vision_encoder image_model vision_model "
    "vision backbone img image",
    "text.tower": "text_tower text_encoder text_model language_model lm encoder text",
    "image.tune": "freeze frozen unfreeze trainable lock lock_image freeze_image tune",
    "text.tune": "lock_text freeze_text",
    "image.size": "image_size resolution res img_size input_size crop_size size",
    "image.pooling": "pool pooling global_pool",
    "image.dtype": "precision amp fp16 bf16 mixed_precision half dtype",
    "text.max_length": "context_length max_len seq_len max_seq_length max_seq_len max_tokens",
    "text.head.name": "head projector projection head_type",
    "text.head.width": "hidden_dim hidden_size mlp_dim hidden",
    "text.head.depth": "num_layers n_layers layers num_hidden_layers",
    "text.head.activation": "act act_fn hidden_act",
    "text.head.dropout": "dropout dropout_rate head_dropout",
    "image.standardize": "normalize_features whiten standardise",
    "start.model": "pretrained from_pretrained",
    "start.run": "checkpoint ckpt init_from init finetune warm_start fork continue_from",
    "closed.l2": "ridge reg regularization regularisation",
    "peft.lora_rank": "lora_r rank r",
    "peft.lora_alpha": "alpha",
    "peft.lora_targets": "target_modules lora_target_modules",
    "peft.adapter_reduction": "reduction_factor reduction bottleneck",
    "data.pairs": "train_data train_file train_set train dataset data dataset_name pairs csv "
    "captions",
    "data.eval": "eval val_data val valid validation validation_file eval_data eval_set test "
    "test_data dev",
    "data.sample": "limit subset max_samples num_samples n_pairs max_train_samples num_pairs",
    "data.workers": "num_workers n_workers threads num_threads dataloader_num_workers jobs",
    "augment.flip": "hflip horizontal_flip random_flip",
    "augment.crop": "random_crop crop_scale random_resized_crop scale_range",
    "augment.randaugment": "rand_augment randaug aug aa autoaugment",
    "cache.views": "num_views n_views augmentations",
    "cache.dir": "cache_dir features_dir feature_dir",
    "latent.mixup": "mixup_alpha",
    "train.batch": "batch_size bs batchsize global_batch_size train_batch_size "
    "per_device_train_batch_size global_batch batch",
    "train.micro_batch": "micro_batch_size gradient_accumulation_steps grad_accum accum_freq "
    "accumulate_grad_batches grad_cache accumulation",
    "train.remat": "grad_checkpointing gradient_checkpointing checkpointing "
    "activation_checkpointing",
    "train.steps": "max_steps num_steps total_steps iterations iters n_iters train_steps "
    "max_iters num_train_steps",
    "train.folds": "n_folds num_folds kfold k_folds cv cross_validation",
    "train.log_every": "log_steps logging_steps log_interval log_freq log_every_n_steps print_freq",
    "train.eval_every": "eval_steps val_every eval_freq val_frequency eval_interval "
    "val_check_interval",
    "train.checkpoint_every": "save_every save_steps save_freq save_frequency save_interval "
    "checkpoint_steps checkpoint_freq ckpt_every",
    "train.keep": "save_total_limit keep_checkpoints save_top_k max_to_keep",
    "eval.batch": "eval_batch_size per_device_eval_batch_size val_batch_size",
    "loss.name": "criterion loss_fn loss",
    "loss.negatives": "local_loss",
    "loss.smoothing": "label_smoothing",
    "structure.weight": "structure_lambda",
    "loss.scale": "logit_scale init_logit_scale inverse_temperature",
    "optim.name": "optimizer optimiser opt",
    "optim.lr": "lr learning_rate learningrate base_lr peak_lr max_lr blr",
    "optim.lr_end": "min_lr end_lr final_lr",
    "optim.schedule": "scheduler lr_scheduler lr_schedule lr_scheduler_type sched",
    "optim.warmup": "warmup_steps num_warmup_steps",
    "optim.b1": "beta1 adam_beta1",
    "optim.b2": "beta2 adam_beta2",
    "optim.weight_decay": "wd decay l2_reg",
    "optim.clip": "grad_clip max_grad_norm clip_norm gradient_clip_val grad_clip_norm",
    "optim.ema": "ema_decay ema_rate",
}
_KEYS = {name: key for key, names in _NAMES.items() for name in names.split()}
_SENTENCES = {
    "epochs num_epochs n_epochs num_train_epochs max_epochs": "length is in steps: write "
    "train.steps, which is epochs x pairs / train.batch",
    "warmup_epochs warmup_ratio": "write optim.warmup, the number of steps",
    "early_stopping early_stop patience early_stopping_patience": "write train.folds=5, which "
    "chooses the number of steps, or eval.keep='best', which keeps the state that did best",
    "temperature temp tau": "write loss.scale, which is 1 / temperature",
    "device devices gpu gpus gpu_ids n_gpus num_gpus accelerator": "a run takes every device that "
    "JAX finds; JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES choose",
    "wandb tensorboard report_to logger comet mlflow": "a run writes metrics.jsonl in its "
    "directory, a line of JSON a step",
    "resume resume_from resume_from_checkpoint auto_resume": "the same command with the same "
    "--workdir goes on from the last checkpoint",
    "workdir output_dir save_dir log_dir logdir run_dir output run dir": "write --workdir DIR",
}
_SAID = {name: said for names, said in _SENTENCES.items() for name in names.split()}


def key_of(name: str, known: Collection[str]) -> str | None:
    """The key that a name stands for elsewhere, or None.

    >>> key_of("train.lr", ["optim.lr"])
    'optim.lr'
    >>> key_of("image.hidden-dim", ["text.head.width", "image.head.width"])
    'image.head.width'

    Args:
      name: what the user wrote, dotted or not.
      known: the keys that there are.
    """
    written = _plain(name)
    last = written.rpartition(".")[2]
    key = _KEYS.get(last) or _KEYS.get(written.replace(".", "_"))
    for side in ("image", "text"):
        if key and written.startswith((f"{side}.", f"{side}_")):
            other = f"{side}.{key.partition('.')[2]}"
            key = other if other in known else key
    return key if key in known else None


def sentence_of(name: str) -> str | None:
    """What to do instead of a name that has no counterpart, or None.

    >>> sentence_of("train.temperature")
    'write loss.scale, which is 1 / temperature'
    """
    return _SAID.get(_plain(name).rpartition(".")[2])


def targets() -> Iterable[str]:
    """The keys that the table names."""
    return _NAMES


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
