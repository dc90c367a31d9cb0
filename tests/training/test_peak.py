"""The peak of a process's memory: that of its own arrays, not of the process that started it."""

import subprocess
import sys

import numpy as np
import pytest

ALONE = "import numpy as np; from medlora.training.peak import peak_mb; {}; print(peak_mb('cpu'))"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are asked otherwise")
def test_peak_is_of_this_process_alone():
    held = np.ones(250_000_000)  # 2 GB, which a child must not be charged with
    seen = [
        float(subprocess.run([sys.executable, "-c", ALONE.format(does)], check=True, capture_output=True).stdout)
        for does in ("pass", "large = np.ones(50_000_000); del large")
    ]
    assert held.nbytes / 1e6 > seen[0] + 500
    assert seen[1] - seen[0] == pytest.approx(400, rel=0.1)
