"""Training that no longer learns is ended."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from vae.errors import UserError
from vae.models.graph.precision import MAX_OVERFLOWS
from vae.models.training.divergence import DivergenceCheck
from vae.utils.distributed import Workers


@pytest.mark.parametrize("good_step", [False, True])
def test_overflows_in_a_row_end_training_and_a_good_step_begins_anew(good_step):
    steps = [6, 7, *[8] * MAX_OVERFLOWS]
    with tf.Graph().as_default():
        check = DivergenceCheck(0.1, [tf.get_variable("weight", [])], Workers())

        def run(global_step_before):
            totals, scalars = np.ones(3, np.float32), {"loss_scale": np.float32(1)}
            check.check_step(totals, scalars, global_step_before, 1, "step 9")

        for global_step_before in steps:
            run(global_step_before)
        if good_step:
            run(9)
            for _ in range(MAX_OVERFLOWS - 1):
                run(9)
        with pytest.raises(UserError, match=f"in {MAX_OVERFLOWS} consecutive steps before step 9"):
            run(9 if good_step else 8)
