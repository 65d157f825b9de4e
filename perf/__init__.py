"""Speed and memory figures, as ratios in one run: `make bench` on a quiet machine writes results/bench/."""
