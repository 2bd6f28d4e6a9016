"""Python runs this in every process of a run under test: it notes what the variables ask for, or nothing."""

import os

if "KISL_SPY" in os.environ:
    import kisl_labels
    from kisl_spying import once_imported

    once_imported("megatron.model.gpt2_model", kisl_labels.watch)
if "KISL_LOGITS" in os.environ:
    import kisl_logits
    from kisl_spying import once_imported

    once_imported("megatron.training", kisl_logits.watch)
