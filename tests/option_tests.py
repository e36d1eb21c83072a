"""Every option of a recipe, and the test that sees what it does; test_options.py holds it complete.

A line names a test, and below it the options whose effect it sees. `*` stands for all keys of a family
where the named test itself runs over every key of it.
"""

from __future__ import annotations

SEEN = """
run/test_option_effects.py::test_an_option_changes_what_is_learned
    base.size fine_tune.accumulate fine_tune.layer_decay fine_tune.clip.per
    fine_tune.average.warmup fine_tune.constraints.biases fine_tune.constraints.min_max_norm.min
    fine_tune.constraints.min_max_norm.max fine_tune.constraints.min_max_norm.rate
    fine_tune.override.activation fine_tune.phases.groups fine_tune.phases.layer_decay
    fine_tune.phases.batch_size fine_tune.phases.optimizer data.augment.seed features.views
    run.precision run.micro_batch
run/test_option_effects.py::test_a_phase_goes_on_from_its_best_epoch_only_where_it_is_asked_to
    fine_tune.phases.restore_best
run/test_option_effects.py::test_the_trainable_part_is_compiled_if_asked
    run.compile
run/test_option_effects.py::test_the_device_is_the_one_that_is_named
    run.device
run/test_option_effects.py::test_checkpoints_inside_an_epoch_come_as_often_as_asked
    run.checkpoint_seconds

recipe/test_problems.py::test_one_wrong_line_is_one_error
    version
recipe/test_load.py::test_the_name_is_the_file
    name
zoo/test_torchvision.py::test_structure_follows_the_weights_name
    base.model
zoo/test_torchvision.py::test_weights_from_a_file
    base.weights
e2e/test_thaw.py::test_without_edits_it_computes_what_the_run_computes
    base.run
model/test_weights.py::test_kept_tensors_are_the_base_s_and_its_own_stay_alone
    head
passes/test_refusals.py::test_both_ways_out_of_an_ambiguous_stage
    freeze.upto.vertex freeze.upto.stage
passes/test_freeze_upto.py::test_a_pattern_freezes_all_that_it_matches_and_says_so
    freeze.upto.match
passes/test_freeze_only.py::test_a_pattern_freezes_what_it_matches_alone
    freeze.only
passes/test_remove_vertex.py::test_golden
    remove
parity/test_dl4j_resize.py::test_a2_b2_two_widths_with_an_initialiser_for_the_layer_and_one_for_its_readers
    resize.<name>.out resize.<name>.init resize.<name>.fan_out_init
passes/test_resize_vertex.py::test_in_is_for_what_another_edit_feeds
    resize.<name>.in
parity/test_resize_overlap.py::test_chain_and_flatten
    resize.<name>.overlap
passes/test_add_input.py::test_an_added_input_is_the_last_argument
    inputs.<name>.shape
passes/test_add_input.py::test_whole_numbers_are_an_input_too
    inputs.<name>.dtype
passes/test_set_outputs.py::test_several_outputs_are_a_dict_in_this_order
    outputs
e2e/test_tasks.py::test_several_outputs_are_learned_together
    task.<name>.task task.<name>.target
training/test_objective.py::test_several_outputs_are_summed_by_their_weights
    task.<name>.weight
training/test_losses.py::test_losses_of_numbers
    task.<name>.loss[mse] task.<name>.loss[mae] task.<name>.loss[huber]
    task.<name>.loss[smooth_l1]
training/test_losses.py::test_where_it_turns_linear_has_an_effect
    task.<name>.loss[huber].delta task.<name>.loss[smooth_l1].beta
training/test_losses.py::test_losses
    task.<name>.loss[cross_entropy] task.<name>.label_smoothing
training/test_losses.py::test_a_focal_loss_by_hand
    task.<name>.loss[focal] task.<name>.loss[focal].gamma
training/test_losses.py::test_weights_multiply_the_loss_of_their_class
    task.<name>.class_weights

training/test_loop.py::test_options_of_data
    data.folder data.split.val data.classes data.per_class
training/test_loop.py::test_the_split_has_a_seed
    data.split.seed
training/test_loop.py::test_augmentation_of_both_splits
    data.augment.train data.augment.val
data/test_datasets.py::test_digits_need_neither_folder_nor_network
    data.dataset
run/test_splits.py::test_table_is_split_class_by_class
    data.csv
run/test_splits.py::test_column_of_splits_is_used
    data.split.column
run/test_splits.py::test_numbers_of_a_table
    data.target
data/test_table_samples.py::test_labels_and_images_of_a_table
    data.image
data/test_hub.py::test_images_labels_and_splits
    data.huggingface
run/test_mixed_runs.py::test_mixing_changes_what_is_learned_and_not_what_is_judged
    data.mix.mixup data.mix.cutmix features.augment.mixup

run/test_features.py::test_without_the_store_nothing_is_written_but_the_run
    features.cache
run/test_features.py::test_chunks_have_one_size
    features.batch_size
run/test_features.py::test_live_rows_have_the_precision_that_the_record_says
    features.precision
features/test_feature_augment.py::test_noise_is_in_deviations_of_the_features
    features.augment.noise
features/test_feature_augment.py::test_dropout_sets_a_share_to_0_and_keeps_the_mean
    features.augment.dropout

run/test_regularise.py::test_a_penalty_makes_smaller_what_it_names
    fine_tune.l1 fine_tune.l2 fine_tune.l1_bias fine_tune.l2_bias
run/test_regularise.py::test_clipping_bounds_the_step
    fine_tune.clip.norm fine_tune.clip.value
run/test_regularise.py::test_renormalised_layers_take_steps_of_length_one
    fine_tune.renormalise
run/test_regularise.py::test_a_constraint_holds_after_the_run
    fine_tune.constraints.max_norm fine_tune.constraints.unit_norm
    fine_tune.constraints.non_negative
run/test_regularise.py::test_an_average_is_judged_and_kept_and_training_goes_on_without_it
    fine_tune.average.ema
training/test_averages.py::test_swa_is_the_equal_average_of_epoch_ends_from_the_start_on
    fine_tune.average.swa.start
run/test_regularise.py::test_an_override_of_dropout_changes_what_is_learned
    fine_tune.override.dropout
training/test_loop.py::test_an_option_of_fine_tune_has_an_effect
    fine_tune.seed fine_tune.optimizer fine_tune.schedule fine_tune.epochs fine_tune.batch_size
    fine_tune.label_smoothing
training/test_loop.py::test_early_stop_of_a_recipe
    fine_tune.early_stop.patience fine_tune.early_stop.min_delta
training/test_loop.py::test_monitor_names_the_best
    fine_tune.monitor
training/test_loop.py::test_a_default_of_new_layers
    fine_tune.activation fine_tune.dropout fine_tune.init
run/test_rates_train.py::test_a_setting_changes_the_training
    fine_tune.groups.<name>.lr fine_tune.groups.<name>.optimizer
    fine_tune.groups.<name>.weight_decay fine_tune.no_decay fine_tune.bias_lr_factor
pain_points/test_data.py::test_balanced_sampling_brings_rare_classes_as_often_as_common_ones
    fine_tune.sampling
pain_points/test_metrics.py::test_class_weights_and_focal_losses_change_what_is_learned
    fine_tune.loss fine_tune.class_weights
run/test_rates_train.py::test_each_phase_has_its_rates_and_its_schedule_from_the_start
    fine_tune.phases.name fine_tune.phases.epochs fine_tune.phases.lr fine_tune.phases.schedule
run/test_resume.py::test_stopped_at_some_places_and_every_edge
    fine_tune.phases.freeze
run/test_rates_train.py::test_until_ends_a_phase_before_its_epochs
    fine_tune.phases.until.plateau fine_tune.phases.until.min_delta

run/test_ranks.py::test_a_run_on_two_devices_is_one_run
    run.devices
training/test_sharding.py::test_each_rank_has_half_of_weights_gradients_and_state
    run.sharding
reliability/test_numbers.py::test_deterministic_kernels_alone_are_taken_if_asked
    run.deterministic
features/test_equality.py::test_the_number_of_workers_changes_nothing
    run.workers
test_meanings_of_runs.py::test_t12_only_the_command_line_names_an_absolute_place_to_write
    run.output_dir
run/test_cache.py::test_the_cache_is_where_runs_keep_it
    run.cache
reliability/test_full_disk.py::test_a_budget_that_is_too_small
    run.cache_budget
run/test_tracking.py::test_tensorboard_has_the_numbers_in_the_runs_folder
    run.track
run/test_engines.py::test_an_engine_computes_what_this_process_does
    sweep.engine
run/test_engines.py::test_isolated_points_share_no_process
    sweep.isolate
run/test_sweep.py::test_fused_points_are_those_that_train_one_by_one
    sweep.fuse

run/test_groups.py::test_an_added_layer_has_its_own_rate
    add.lr
run/test_groups.py::test_an_added_layer_has_its_own_optimizer
    add.optimizer
run/test_groups.py::test_an_added_layer_has_its_own_weight_decay
    add.weight_decay
passes/test_add_layer.py::test_a_region_feeds_all_of_its_readers
    add.inputs add.feeds
recipe/test_layers_regions.py::test_norm_activation_and_dropout_follow
    add.*.norm add.*.activation add.*.dropout
recipe/test_initialisers.py::test_init_is_torchs_own
    add.*.init
run/test_regularise.py::test_an_added_layer_s_own_penalty_wins_and_zero_means_none
    add.*.l1 add.*.l2 add.*.l1_bias add.*.l2_bias
run/test_regularise.py::test_an_added_layer_s_own_constraints_win_and_empty_means_none
    add.*.constraints
recipe/test_layer_settings.py::test_a_layer_without_a_bias_has_none
    add.*.bias add.*.out
recipe/test_initialisers.py::test_bias_init_is_a_number
    add.*.bias_init
recipe/test_layers.py::test_embedding_reads_an_input_of_whole_numbers
    add.embedding.num_embeddings add.embedding.out add.embedding.padding_idx
recipe/test_layers.py::test_siamese_twins_share_one_layer
    add.unstack.index add.unstack.num
recipe/test_layer_settings.py::test_a_setting_reaches_the_window
    add.depthwise_conv2d.kernel add.depthwise_conv2d.stride add.depthwise_conv2d.dilation
    add.depthwise_conv2d.padding add.depthwise_conv2d.padding_mode
    add.separable_conv1d.kernel add.separable_conv1d.stride add.separable_conv1d.dilation
    add.separable_conv1d.padding_mode

training/test_optim.py::test_every_optimizer_of_the_recipe_is_built_and_each_of_its_options_has_a_row
    optimizers.*
training/test_schedule.py::test_a_warm_up_grows_step_by_step_on_top_of_the_schedule
    schedules.*.warmup
training/test_schedule.py::test_one_cycle_is_torch_s_step_by_step
    schedules.one_cycle.*
training/test_schedule.py::test_a_plateau_is_torch_s
    schedules.plateau.*
data/test_augment.py::test_every_parameter_changes_pixels_and_tag
    augmentations.*
"""
