"""Eight CPU devices, optimised as in a run: what XLA makes of a step is counted here."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
