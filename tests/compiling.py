"""How XLA compiles the programs of tests: quickly, or as it does for users.

Tests compile many programs and run each of them a few times. So XLA does as little as it can with
them: that halves what all of them take. Its passes over HLO, which decide on collectives and types,
are all there.
"""

from importlib import metadata

DEVICES = "--xla_force_host_platform_device_count=8"
# Options of a program: as tests have them, and as they are otherwise.
_OPTIONS = {
    "xla_backend_optimization_level": (0, 3),
    "xla_llvm_disable_expensive_passes": (True, False),
    "xla_cpu_parallel_codegen_split_count": (1, 32),
}
if metadata.version("jaxlib").startswith("0.10."):  # Later ones have no other emitters.
    _OPTIONS["xla_cpu_use_fusion_emitters"] = (False, True)
USUAL = {name: usual for name, (_, usual) in _OPTIONS.items()}
QUICK = [f"--{name}={str(quick).lower()}" for name, (quick, _) in _OPTIONS.items()]


def others(flags: str) -> list[str]:
    """The flags in `XLA_FLAGS` that tests have not put there."""
    return [flag for flag in flags.split() if flag not in (DEVICES, *QUICK)]
