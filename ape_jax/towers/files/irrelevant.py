"""Keys in the files of towers that cannot change a tower's output, by file and reason.

What stands here is left out of "not read: ..." (`reading.py`). A key that changes the output for
some values stands in `_NEUTRAL` with those that do not.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping
from typing import Any

_ANY = "*"
_TABLES: Mapping[str, Mapping[str, str]] = {
    _ANY: {
        "written for the reader": "_* transformers_version transformers.js_config __version__ "
        "unsloth_* auto_map processor_class library_name license tags",
    },
    "config.json": {
        "computed from others, or read off the weights": "patch_dim in_features",
        "states of training and how parameters begin": "*dropout* *dropout_prob drop_path_rate "
        "stochastic_depth_prob initializer_* init_std layerscale_value layer_scale_init_value "
        "gradient_checkpointing use_mask_token mask_ratio norm_pix_loss pos_embed_shift "
        "pos_embed_jitter pos_embed_rescale label_smoothing sinusoidal_pos_embds "
        "pretraining_tp reference_compile repad_logits_with_grad deterministic_flash_attn "
        "use_memory_efficient_attention unpad_inputs use_flash_attn* fused_* mask_prob "
        "router_aux_loss_coef",
        "dtype of the file, which the tensors say themselves": "torch_dtype dtype use_bfloat16 "
        "dtype_* torchscript",
        "what transformers' classes return": "architectures output_* return_dict* use_cache "
        "chunk_size_feed_forward problem_type is_encoder_decoder tf_legacy_loss is_composition",
        "heads, which are no part of a tower": "id2label label2id num_labels finetuning_task "
        "task_specific_params label_names num_classes classifier_* clf_* decoder_* pooler_* "
        "sparse_* summary_* use_auxiliary_head auxiliary_* pool_scales semantic_loss_ignore_index "
        "encoder_stride tie_word_embeddings tie_encoder_decoder num_decoder_layers "
        "scale_decoder_outputs final_logit_softcapping temperature_init_value logit_* "
        "max_logit_scale output_embedding_size loss_* add_fpn use_labels",
        "feature pyramids": "out_features out_indices stage_names apply_layernorm "
        "reshape_hidden_states",
        "the other tower, and what joins two": "text_config vision_config "
        "projection_dim projection_size project_dim image_text_hidden_size "
        "encoder_hidden_size cross_attention_hidden_size add_cross_attention max_img_size",
        "video": "video_* *temporal_patch*",
        "ids of special tokens, which the tokenizer's files decide": "bos_token_id eos_token_id "
        "pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id image_token_id "
        "vocab_list decoder_start_token_id",
        "derived from other keys": "num_key_value_groups _sliding_window_pattern "
        "max_window_layers dense_act_fn is_gated_act cache_implementation task_type_vocab_size",
        "generation": "max_length min_length do_sample early_stopping num_beams num_beam_groups "
        "diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty "
        "*no_repeat_ngram_size bad_words_ids num_return_sequences forced_*_token_id prefix "
        "remove_invalid_values exponential_decay_length_penalty suppress_tokens "
        "begin_suppress_tokens max_new_tokens",
        "of ALBERT's first code": "down_scale_factor gap_size net_structure_type "
        "num_memory_blocks layers_to_keep",
        "names": "name_or_path model_name model_type",
        "asked for only where tokenizer_config.json does not say it": "tokenizer_class",
        "timm: where a model is from, its classifier, other uses of it": "num_features url tag "
        "file source hf_hub_* paper_* origin_url first_conv classifier* pool_size custom_load "
        "label_offset label_descriptions test_* min_input_size notes do_pooling",
    },
    "open_clip_config.json": {
        "states of training": "*dropout timm_drop* *_pretrained cast_dtype output_*",
        "heads, which are no part of a tower": "embed_dim init_logit_* nonscalar_logit_scale "
        "timm_proj* hf_proj_type proj_*",
        "what the tensors say": "custom_text ls_init_value pos_embed_type attn_pooler_* pad_id "
        "eos_id final_ln_after_pool",
    },
    "model.safetensors.index.json": {"sizes of all shards together": "metadata"},
    "preprocessor_config.json": {
        "names, and where arrays lie": "image_processor_type feature_extractor_type "
        "image_processor_class processor_class data_format input_data_format return_tensors "
        "device disable_grouping backend num_channels",
        "every image is made RGB": "do_convert_rgb",
        "labels of segmentation": "do_reduce_labels reduce_labels segmentation_maps",
        "other inputs of the model": "video_* image_seq_length feature_size sampling_rate",
    },
    "tokenizer_config.json": {
        "spelling of special tokens, which tokenizer.json has": "bos_token eos_token unk_token "
        "sep_token pad_token cls_token mask_token *_special_tokens *_token_id *_token_ids "
        "added_tokens_decoder additional_special_tokens special_tokens_map_file "
        "image_token audio_token video_token boi_token eoi_token *_tokens_map",
        "decoding and chat": "clean_up_tokenization_spaces chat_template errors "
        "spaces_between_special_tokens sp_model_kwargs",
        "where padding stands, which is masked": "padding_side padding pad_to_multiple_of "
        "pad_token_type_id",
        "places of tokens in the text": "trim_offsets",
        "what transformers' classes return": "model_input_names return_token_type_ids "
        "return_tensors",
        "names, and how a class is made": "name_or_path tokenizer_file vocab_file merges_file "
        "use_fast from_slow legacy is_local local_files_only tokenizer_type backend "
        "never_split model_type",
        "two texts at once": "stride truncation_strategy",
    },
    "sentence_bert_config.json": {},
    "config_sentence_transformers.json": {
        "how two vectors are compared": "similarity_fn_name model_type score_function",
        "names": "name_or_path",
    },
    "adapter_config.json": {
        "states of training": "lora_dropout inference_mode init_lora_weights revision "
        "base_model_class task_type megatron_* layer_replication loftq_config eva_config "
        "corda_config runtime_config",
    },
}
# Values that change nothing, of keys that would change something with others.
_NEUTRAL: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "config.json": {
        "is_decoder": (False,),
        "position_embedding_type": ("absolute",),
        "attention_bias": (False,),
        "is_folding_model": (False,),
        "token_dropout": (False,),
        "use_absolute_position_embeddings": (False,),
        "use_shared_relative_position_bias": (False,),
        "encoder_no_repeat_ngram_size": (0,),
        "use_sliding_window": (False,),
        "is_native": (False,),
        "hidden_activation": ("gelu_pytorch_tanh",),
    },
    "preprocessor_config.json": {
        "do_pad": (False,),
        "use_square_size": (False,),
        "do_thumbnail": (False,),
        "do_align_long_axis": (False,),
        "do_flip_channel_order": (False,),
        "do_rescale": (True,),
    },
    "tokenizer_config.json": {
        "do_basic_tokenize": (True,),
        "split_special_tokens": (False,),
        "truncation_side": ("right",),
        "truncation": (True, False),
        "do_lower_case": (False,),
        "add_prefix_space": (False,),
    },
}
CHOICES: Mapping[str, tuple[str, ...]] = {"config_sentence_transformers.json": ("prompts",)}
"""Keys of objects of which one entry is chosen, by file."""
_ALIKE = {"processor_config.json": "preprocessor_config.json"}


def is_irrelevant(file: str, key: str, value: Any) -> bool:
    """Whether a key of a tower's file is known to leave the tower's output as it is.

    >>> is_irrelevant("config.json", "hidden_dropout_prob", 0.1)
    True
    >>> is_irrelevant("config.json", "hidden_size", 64)
    False

    Args:
      file: name of the file, such as "config.json".
      key: in it.
      value: of the key; one that is empty says nothing.
    """
    if value is None or value == "" or value == [] or value == {}:
        return True
    file = _ALIKE.get(file, file)
    known = _NEUTRAL.get(file, {}).get(key, ())
    return any(value is v or (value == v and type(value) is type(v)) for v in known) or any(
        fnmatch.fnmatchcase(key, pattern) for pattern in _patterns(file)
    )


@functools.cache
def _patterns(file: str) -> tuple[str, ...]:
    tables = (_TABLES[_ANY], _TABLES.get(file, {}))
    return tuple(pattern for table in tables for keys in table.values() for pattern in keys.split())
