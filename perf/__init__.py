"""Speed and memory figures, as ratios in one run: `make perf` on a quiet machine writes results/bench/."""
